"""`llm completion bash|zsh|fish`: a script that completes commands, groups with their choices, and keys."""

from collections.abc import Sequence

from llm.cli import catalog
from llm.config import SCHEMAS, known_keys
from llm.config.words import REFUSED, nearest
from llm.errors import ConfigError

_BASH = """# Add to ~/.bashrc:  eval "$(llm completion bash)"
_llm() {{
    local cur="${{COMP_LINE:0:COMP_POINT}}" words="" word
    cur="${{cur##* }}"
    local before="${{cur%"${{cur##*=}}"}}"
    if [ "$COMP_CWORD" -eq 1 ]; then words="{verbs} completion"; fi
    if [ "$COMP_CWORD" -gt 1 ]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
            completion) words="{shells}" ;;
        esac
    fi
    COMPREPLY=()
    for word in $(compgen -W "$words" -- "$cur"); do COMPREPLY+=("${{word#"$before"}}"); done
    case "${{COMPREPLY[0]}}" in *=) compopt -o nospace 2>/dev/null ;; esac
}}
complete -o default -F _llm llm"""

_ZSH = """# Add to ~/.zshrc, after compinit:  eval "$(llm completion zsh)"
_llm() {{
    if (( CURRENT == 2 )); then compadd -- {verbs} completion; return; fi
    case "${{words[2]}}" in
{cases}
        completion) compadd -- {shells}; return ;;
    esac
    compset -P '*='
    _files
}}
compdef _llm llm"""

_FISH = """# Add to ~/.config/fish/config.fish:  llm completion fish | source
complete -c llm -n __fish_use_subcommand -f -a '{verbs} completion'
complete -c llm -n '__fish_seen_subcommand_from completion' -f -a '{shells}'
{cases}"""

_SCRIPTS = {
    "bash": (_BASH, '            {verb}) words="{words}" ;;'),
    "zsh": (_ZSH, "        {verb}) compadd -- {choices}; compadd -S '' -- {keys} ;;"),
    "fish": (_FISH, "complete -c llm -n '__fish_seen_subcommand_from {verb}' -a '{words}'"),
}


def script(argv: Sequence[str], verbs: Sequence[str]) -> str:
    """The completion script for a shell.

    Raises:
        ConfigError: the shell isn't one of those.
    """
    shell = argv[0] if len(argv) == 1 else ""
    if shell not in _SCRIPTS:
        guess = nearest(shell, _SCRIPTS)
        hint = f" Did you mean {guess}?" if guess else ""
        raise ConfigError(f"completion {' '.join(argv)}: name one shell: {', '.join(_SCRIPTS)}.{hint}")
    frame, line = _SCRIPTS[shell]
    cases = "\n".join(_case(line, verb) for verb in verbs)
    return frame.format(verbs=" ".join(verbs), cases=cases, shells=" ".join(_SCRIPTS))


def _case(line: str, verb: str) -> str:
    words = words_of(verb)
    choices, keys = ([word for word in words if word.endswith("=") == is_key] for is_key in (False, True))
    return line.format(verb=verb, words=" ".join(words), choices=" ".join(choices), keys=" ".join(keys))


def words_of(verb: str) -> list[str]:
    """Every `group=choice` and `key=` of a verb, those of all choices included."""
    folders = catalog.config_folders(None)
    groups = catalog.choices_of_verb(verb, folders)
    choices = [f"{group}={name}" for group, names in groups.items() for name in names]
    keys = set(known_keys(SCHEMAS[verb], {})).difference(groups)
    if verb == "train":
        keys |= set(known_keys(SCHEMAS["sweep"], {})) - {"sweep"}
    for group, names in groups.items():
        keys |= {key for name in names for key in catalog.keys_of_choice(verb, folders, group, name)}
    shown = (key for key in keys if key not in REFUSED and not key.rpartition(".")[2].startswith("_"))
    return choices + sorted(f"{key}=" for key in shown)

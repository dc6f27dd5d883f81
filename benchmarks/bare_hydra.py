"""What bare Hydra says: the same conf/ behind `@hydra.main`, composed, printed, and nothing else checked."""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf


@hydra.main(version_base=None, config_path=str(Path(__file__).parent.parent / "conf"), config_name="train")
def main(config: DictConfig) -> None:
    """Print the whole config, as a program does that reads every key."""
    print(OmegaConf.to_yaml(config, resolve=True))


if __name__ == "__main__":
    main()

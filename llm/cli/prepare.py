"""`llm prepare`: make the shards of a corpus."""

ABOUT = """Make the shards of a corpus ahead of training: train the tokenizer, encode, write, report. A run with the
same data= and tokenizer= finds them by their fingerprint. A killed preparation goes on where it stopped."""

EXAMPLES = {
    "data=text 'data.paths=[my_folder/**/*.txt]' tokenizer.vocab_size=8192": "your own text",
    "data=wikipedia data.paths=[enwiki-latest-pages-articles.xml.bz2]": "the articles of a dump",
    "data=common_crawl data.paths=[wet.paths.gz]": "web pages, as a list of Common Crawl names them",
}

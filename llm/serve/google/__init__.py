"""Google Cloud Natural Language's requests and answers, versions 1 and 2, made of what models with labels say."""

"""Where examples come from: the corpus, the forget sets, and the tidy tables they end in."""

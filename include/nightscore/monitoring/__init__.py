"""Evidence: how challengers score beside the champion, by night and over all nights, and what a policy says of it."""

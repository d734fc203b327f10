"""A demonstration that needs no data of anyone's: an invented card portfolio, its outcomes, and two models."""

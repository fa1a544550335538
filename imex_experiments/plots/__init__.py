"""Arrays to images. Nothing here knows of networks, data sets or runs."""

"""The commands of the face, one a file: each declares its arguments and runs on them."""

"""Many runs read back: as rows, in groups, compared, drawn and written down."""

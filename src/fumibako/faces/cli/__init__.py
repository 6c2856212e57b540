"""The command line: one file a noun, every verb a call of services.admin, answers as tables or JSON."""

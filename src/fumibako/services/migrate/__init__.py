"""Mail in and out: whole accounts as Maildir or mbox, and the mail that other programs left behind."""

"""What is asked for besides the image: names, language, accounts, kept in the deployment's /etc (ADR 0027)."""

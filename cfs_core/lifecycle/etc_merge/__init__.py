"""The three-way merge of /etc: what the old image had, what is there, what the new image has."""

"""What a provider must do: one file per family, same name as the family."""

"""A deployment, whatever it goes to: the image prepared, choices made, state and boot entry planned."""

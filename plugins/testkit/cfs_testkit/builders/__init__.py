"""Makes what tests need from a few words: images and archives, byte by byte where they are to be wrong."""

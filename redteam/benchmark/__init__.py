"""The benchmark: thieves, honest families and rivals on fixed splits and seeds, and what is made of them."""

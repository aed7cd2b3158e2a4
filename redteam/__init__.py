"""What attacks us: thieves, honest traffic to tell them from, and the data of the demo."""

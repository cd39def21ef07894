"""Log-probabilities of given tokens straight from hidden states: no row of logits is ever stored."""

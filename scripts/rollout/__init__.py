"""What `canary` is made of: whose traffic moves, how both sides do, and what is concluded from that."""

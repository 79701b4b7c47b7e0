"""The truth about rooms: order, durability, and (as cores) what replication needs."""

"""The demonstration: two whole servers on loopback do the main job, and every line shown is theirs.

world starts and kills them, forwarder is the one resolver that knows both, trail reads their traces, clients talk to them,
journey, bounce, decoding and plug are what is shown, screen and picture how.
"""

"""Learning from nothing on a public set, to look at information and critical periods."""

"""Attacks on a running node, and faults around it: that it is no weapon, serves honest peers meanwhile, and loses nothing."""

"""A NAT laboratory: hosts and routers in network namespaces, real peers inside, and a matrix of who meets whom.

`python -m tests.lab` prints the matrix; docs/nat-lab.md explains it. The modules, bottom up:

requirements  what the laboratory needs from the machine, and the loud skip where it is missing
namespaces    network namespaces, the links between them, and their certain end
nat           the kinds of NAT, as nftables rules
delay         cables on which frames take their time
world         an internet with introducers and sites behind NATs
capture       every datagram that a host sends or gets, with its time
trace         what those datagrams say
programs      programs inside a namespace that speak lines of JSON
clients       peers under test: one more kind of client is one more entry there
introducers   the indexed peers that the clients know
pairing       two clients behind two NATs with the same introducers, and sessions of both
attempt       one try: both become ready, meet and talk; what it showed
recovery      how long two peers need after a change of address
matrix        many tries of many pairs, and their figures
log           tries in a file, for runs in pieces
"""

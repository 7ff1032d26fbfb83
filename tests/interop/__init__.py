"""Interoperation: unmodified reference peers under Node against one `srpnode run`, whose two identities are all they know.

    python -m pytest tests/interop                          against the srpnode of this environment
    SRPNODE_SUT=reference python -m pytest tests/interop    the control experiment: reference introducers in its place
    SRPNODE_DEADLINE_S=10 …                                 less patience while developing

    reference.py   the clients, driven through tests/reference/driver.mjs
    raw.py         a peer on a bare socket, for what no honest peer sends and for counting what the node sends
    sut.py         the system under test: configuration, start, restart, counters
    datagram.py    the wire format once more, independent of the code under test

Everything happens on loopback, each test on a /24 of its own. After every test the clients are asked whether anything
happened that must not happen in an honest peer.
"""

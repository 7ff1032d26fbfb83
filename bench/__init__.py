"""The bench: a node, bare recvmmsg/sendmmsg programs and the reference peer, side by side under the same load."""

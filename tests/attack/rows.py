"""The rows of the attack table that apply: clients' transport, ACME, OAuth, JWTs that are looked at, local files. Left out
are those that need what keyturn does not have yet, each with the reason."""

# T25 is HTTP/2 at a client that speaks HTTP/1.1: with libcurl before 8.1 (Debian 12 has 7.88) the courier never offers HTTP/2,
# so a server that talks it is refused at its first frame; with a later libcurl the frames are nghttp2's to judge.
APPLY = {
    "transport": "T1 T2 T3 T4 T5 T6 T8 T9 T10 T11 T12 T13 T14 T16 T17 T18 T19 T21 T22 T23 T24 T25 T26 T27",
    "ACME": "A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A12 A13 A15 A16 A17 A19 A20 A21 A22 A24 A25 A26 A27 A28 A29 A30",
    "OAuth": "O1 O2 O3 O5 O6 O7 O8 O9 O10 O11 O12 O13 O15",
    "JOSE": "J1 J2 J3 J4 J5 J6 J7 J9 J11 J12 J14 J15 J16",
    # What the table says of clients, at the servers of clients' secrets, of AWS sessions and of uploads: C1 too much, C2 too slow,
    # C3 something else, C4 elsewhere, C5 values that are none, C6 half or over, C7 echoes of secrets, C8 refusals, C9 a stranger.
    "clients, sessions, uploads": "C1 C2 C3 C4 C5 C6 C7 C8 C9",
    "local": "L1 L2 L4 L6 L7 L8 L9 L10 L11 L12 L13",
}
LEFT_OUT = {
    "L5": "the crash layer and the unit tests let every call fail",
}

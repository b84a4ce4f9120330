"""Package sets: several packages and a table of which one does what, made, signed, published, pulled and run as one.

    SET/kobako-set.json     members (name, where, SHA-256 of each one's kobako.json) and routes (task → member)
    SET/model.sig           vouches for kobako-set.json, and by the digests in it for every byte of every member
    SET/MEMBER/kobako.json  a member: a package like any other, with a signature of its own or without

    table    kobako-set.json ⇄ PackageSet, and the choice of a member for a task
    make     packages and addresses → a set directory
    check    a set directory → what is vouched for, and its signing
    travel   publishing, and pulling: all members, or nothing that anybody can see

A member is handled by the code that handles single packages; what is here is only what a set adds.
"""

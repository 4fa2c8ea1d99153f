"""A job's process of the service, as a script for `support.nursery`: its pipe is file 3."""

from multiprocessing.connection import Connection

from protocols.service.jobs.child.main import main

if __name__ == "__main__":
    main(Connection(3))

# cext/mailbox.h: commands from Python to a loop thread.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

cdef extern from "mailbox.h" nogil:
    enum:
        SRP_COMMAND_OPEN_POOL
        SRP_COMMAND_CLOSE_POOL
        SRP_COMMAND_REPLACE
        SRP_COMMAND_HEARTBEAT
        SRP_COMMAND_LOCAL
        SRP_COMMAND_CORE
    ctypedef struct srp_command:
        uint32_t kind
        int32_t result
        void *data
        uint64_t size
    ctypedef struct srp_mailbox:
        int wake_fd
    void srp_mailbox_stop(srp_mailbox *box)
    bint srp_mailbox_stopped(srp_mailbox *box)
    int srp_mailbox_post(srp_mailbox *box, srp_command *command)
    srp_command *srp_mailbox_take(srp_mailbox *box)
    void srp_mailbox_awake(srp_mailbox *box)
    void srp_command_finish(srp_command *command, int32_t result)
    bint srp_command_done(srp_command *command)
    bint srp_command_wait(srp_command *command, int64_t timeout_us)

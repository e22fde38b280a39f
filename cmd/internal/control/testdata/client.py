"""A backup server in another language: drives a job and a failback end to end over gRPC."""

import sys

import grpc
import haulback_pb2 as pb
import haulback_pb2_grpc as rpc


def reason(error):
    """The ErrorInfo in the status of a gRPC error."""
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            at = value.find(b"haulback.v1.ErrorInfo")
            if at < 0:
                continue
            # google.rpc.Status: the Any's value is field 2, after its type
            rest = value[at + len(b"haulback.v1.ErrorInfo") :]
            assert rest[0] == 0x12, rest
            size, start = rest[1], 2
            if size & 0x80:
                size, start = (rest[1] & 0x7F) | rest[2] << 7, 3
            return pb.ErrorInfo.FromString(rest[start : start + size])
    raise AssertionError("no ErrorInfo in %r" % (error,))


def refused(call, code, why):
    try:
        call()
    except grpc.RpcError as e:
        info = reason(e)
        assert e.code() == code, e
        assert (info.reason, info.domain) == (why, "haulback"), info
        return info
    raise AssertionError("not refused")


channel = grpc.insecure_channel("unix:" + sys.argv[1], [("grpc.default_authority", "haulback")])
jobs, daemon, extents = rpc.JobsStub(channel), rpc.DaemonStub(channel), rpc.ExtentsStub(channel)

print("version", daemon.GetInfo(pb.GetInfoRequest()).version)

spec = pb.JobSpec(mode=pb.MODE_COPY, disks=[pb.JobDisk(source="/src/vm", target="/dst/python")])
first = jobs.Submit(pb.SubmitRequest(id="python-1", spec=spec))
assert not first.already_existed
assert jobs.Submit(pb.SubmitRequest(id="python-1", spec=spec)).already_existed

seen = 0
for event in jobs.Watch(pb.WatchRequest(job_id="python-1")):
    if event.revision:
        assert event.revision >= seen, (event.revision, seen)
        seen = event.revision
    if event.WhichOneof("event") == "job" and event.job.phase == pb.PHASE_COMPLETED:
        break
    assert event.job.phase not in (pb.PHASE_FAILED, pb.PHASE_CANCELED), event

job = jobs.Get(pb.GetRequest(id="python-1")).job
assert job.disks[0].outcome.verified and job.disks[0].outcome.counters.total_bytes == 1 << 40, job

other = pb.JobSpec(mode=pb.MODE_VERIFY, disks=spec.disks)
info = refused(lambda: jobs.Submit(pb.SubmitRequest(id="python-1", spec=other)), grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
assert info.metadata["stored_digest"] == job.spec_digest != info.metadata["submitted_digest"], info
assert info.retry == pb.RETRY_NEVER
refused(lambda: jobs.Get(pb.GetRequest(id="absent")), grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
refused(lambda: jobs.Submit(pb.SubmitRequest(id="x" * (1 << 21), spec=spec)), grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA")

# resumed in the middle of an extent, in small messages
list_ = [m for m in extents.Allocated(pb.AllocatedRequest(uri="/disk", starting_offset=105, max_results=7))]
assert list_[0].volume_capacity_bytes == 10000 and not list_[0].block_metadata
flat = [(b.byte_offset, b.size_bytes) for m in list_ for b in m.block_metadata]
assert flat[0] == (105, 5) and flat[1] == (200, 10) and len(flat) == 99, flat[:3]
assert max(len(m.block_metadata) for m in list_) == 7

jobs.Remove(pb.RemoveRequest(id="python-1"))

# the way home of a VM
failbacks = rpc.FailbacksStub(channel)
failbacks.PutPair(pb.PutPairRequest(pair=pb.Pair(name="web", original=pb.VmRef(host="home", name="web"), replica=pb.VmRef(host="dr", name="web"))))
pair = failbacks.Failover(pb.FailoverRequest(name="web")).pair
assert pair.state == pb.VM_STATE_FAILOVER, pair
home = pb.FailbackSpec(vm="web", destination=pb.DESTINATION_ORIGINAL)
plan = failbacks.Plan(pb.PlanRequest(spec=home)).plan
begun = failbacks.Start(pb.StartRequest(id="python-2", spec=home, confirmed_digest=plan.digest))
assert begun.failback.owner.startswith("uid ") and not begun.already_existed, begun
for event in failbacks.Watch(pb.WatchFailbacksRequest(failback_id="python-2")):
    if event.WhichOneof("event") == "synced":
        failbacks.Commit(pb.CommitRequest(id="python-2", expected_revision=begun.failback.revision))
    if event.failback.activity == pb.ACTIVITY_COMMITTING:
        break
refused(lambda: failbacks.Undo(pb.UndoRequest(id="python-2", expected_revision=1)), grpc.StatusCode.FAILED_PRECONDITION, "STATE_CONFLICT")
refused(lambda: failbacks.CheckReplication(pb.CheckReplicationRequest(name="web")), grpc.StatusCode.FAILED_PRECONDITION, "HELD_BY_FAILBACK")
print("done")

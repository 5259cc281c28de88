//! Codec of [`crate::state`].
//!
//! Pure: values to FlatBuffers and back.

use std::borrow::Borrow;

use flatbuffers::{ForwardsUOffset, Vector, WIPOffset};

use super::{
    Builder, DecodeError, Field, SIZE_TYPICAL, Slot, Wire, choice, fb, messages, table,
    table_field, union,
};
use crate::state::{
    Access, Assignment, Assignments, AuditContext, AuditRecord, Authority, Change, ClaimRecord,
    Command, Host, HostRevision, Identities, JobEnd, Kind, ManifestRecord, MoveReason, Moved,
    Object, ObjectIdentity, Origin, PolicyRecord, Reference, ResolvedImage, ResolvedImages,
    RevisionEnd, RevisionOutcome, RevisionRecord, Revisions, RolloutPhase, RolloutRecord, Snapshot,
    TokenRecord, UserRecord, UserRole, WorkloadRecord,
};

messages! {
    Command, "BMco", command_size;
    Snapshot, "BMst" or later snapshot_mark in ["BMs2", "BMs3"], snapshot_size;
}

/// From level 2 on a snapshot has revisions, and from level 3 on the hosts that are lost. A gateway of an older release would
/// ignore them, and continue with another state than the other members.
fn snapshot_mark(snapshot: &Snapshot) -> &'static str {
    match snapshot.level {
        0 | 1 => "BMst",
        2 => "BMs2",
        _ => "BMs3",
    }
}

/// The size of an encoded identity and of the reference to it, in bytes.
const IDENTITY_SIZE: usize = 48;

/// The approximate size of an encoded command in bytes.
pub(super) fn command_size(command: &Command) -> usize {
    match &command.change {
        Change::Apply { objects, .. } => SIZE_TYPICAL + objects_size(objects),
        Change::SetPolicy { document, .. } => SIZE_TYPICAL + document.len(),
        _ => SIZE_TYPICAL,
    }
}

fn objects_size<O: Borrow<Object>>(objects: &[O]) -> usize {
    let objects = objects.iter().map(Borrow::borrow);
    objects.map(|object| SIZE_TYPICAL + object.body.len()).sum()
}

fn snapshot_size(snapshot: &Snapshot) -> usize {
    let manifests = snapshot.manifests.iter();
    let objects: usize = manifests
        .map(|m| SIZE_TYPICAL + objects_size(&m.objects))
        .sum();
    let access = snapshot.access.as_ref();
    let records = access.map_or(0, |access| access.users.len() + access.audit.len() + 8);
    let others =
        records + snapshot.hosts.len() + snapshot.workloads.len() + snapshot.tokens.len() + 1;
    let assigned = snapshot.assignments.as_ref();
    let assigned = assigned.map_or(0, |all| all.assigned.len() + all.claims.len());
    let others = others + assigned;
    let kept = snapshot.revisions.as_ref();
    let objects = objects + kept.map_or(0, |kept| objects_size(&kept.objects));
    let others = others + kept.map_or(0, |kept| kept.revisions.len() + kept.rollouts.len());
    let identities = snapshot.identities.as_ref();
    let objects = objects + identities.map_or(0, |all| all.objects.len() * IDENTITY_SIZE);
    let policy = snapshot.policy.as_ref().map_or(0, |p| p.document.len());
    objects + others * SIZE_TYPICAL + policy
}

choice! { Kind = Kind { Pod, Deployment, DaemonSet, Job, ConfigMap, Secret, PersistentVolumeClaim } }

table! { Host = Host(HostArgs) "host" {
    id, name, addresses, labels, drained, claims_as, votes_from_ms, lost_at_ms,
    declared_lost, steady_at_ms
} }

table! { TokenRecord = TokenRecord(TokenRecordArgs) "token_record" { id, secret_hash, expires_ms, uses } }

table! { Reference = Reference(ReferenceArgs) "reference" { kind, name, optional } }

table! { Object = Object(ObjectArgs) "object" {
    kind, namespace, name, body, hash, references, replicas, selector
} }

choice! { UserRole = UserRole { Viewer, Deployer, Admin } }

table! { UserRecord = UserRecord(UserRecordArgs) "user_record" { name, role, certificate, made_ms, expires_ms } }

table! { Authority = Authority(AuthorityArgs) "authority" { certificate, key, sealed } }

table! { Origin = Origin(OriginArgs) "origin" { host, who, from } }

table! { AuditRecord = AuditRecord(AuditRecordArgs) "audit_record" { index, at_ms, origin, what, name, context } }
table! { AuditContext = AuditContext(AuditContextArgs) "audit_context" { detail, host_name } }

table! { Access = Access(AccessArgs) "access" { authority, users, audit } }

union! { Change = Change(ChangeArgs, ChangeBody) "change"
    record Found { cluster, host } = ChangeFound(ChangeFoundArgs) body_as_found;
    record Apply { manifest, objects, policy, keep, if_index } = ChangeApply(ChangeApplyArgs) body_as_apply;
    record DeleteWorkload { workload } = ChangeDeleteWorkload(ChangeDeleteWorkloadArgs) body_as_delete_workload;
    record DeleteManifest { manifest } = ChangeDeleteManifest(ChangeDeleteManifestArgs) body_as_delete_manifest;
    record Admit { token, secret_hash, host, replaces } = ChangeAdmit(ChangeAdmitArgs) body_as_admit;
    record RemoveHost { host } = ChangeRemoveHost(ChangeRemoveHostArgs) body_as_remove_host;
    record RevokeToken { token } = ChangeRevokeToken(ChangeRevokeTokenArgs) body_as_revoke_token;
    record LabelHost { host, set, remove } = ChangeLabelHost(ChangeLabelHostArgs) body_as_label_host;
    record DrainHost { host, drained } = ChangeDrainHost(ChangeDrainHostArgs) body_as_drain_host;
    record DemoteHost { host } = ChangeDemoteHost(ChangeDemoteHostArgs) body_as_demote_host;
    record PutAuthority { authority, replaced } = ChangePutAuthority(ChangePutAuthorityArgs) body_as_put_authority;
    record RevokeUser { user } = ChangeRevokeUser(ChangeRevokeUserArgs) body_as_revoke_user;
    record SetPolicy { document, if_version } = ChangeSetPolicy(ChangeSetPolicyArgs) body_as_set_policy;
    record RaiseLevel { level } = ChangeRaiseLevel(ChangeRaiseLevelArgs) body_as_raise_level;
    record Assign { workload, ordinal, index, from, host } = ChangeAssign(ChangeAssignArgs) body_as_assign;
    record EndJob { workload, ordinal, index, succeeded, reason, again } = ChangeEndJob(ChangeEndJobArgs) body_as_end_job;
    record Roll { workload, index, to, hosts, numbers } = ChangeRoll(ChangeRollArgs) body_as_roll;
    record EndRollout { workload, index, outcome, reason, images } = ChangeEndRollout(ChangeEndRolloutArgs) body_as_end_rollout;
    record PauseRollout { workload, paused } = ChangePauseRollout(ChangePauseRolloutArgs) body_as_pause_rollout;
    record Undo { workload, revision, policy } = ChangeUndo(ChangeUndoArgs) body_as_undo;
    record RequireLevel { level } = ChangeRequireLevel(ChangeRequireLevelArgs) body_as_require_level;
    record LoseHost { host, declared } = ChangeLoseHost(ChangeLoseHostArgs) body_as_lose_host;
    record ReturnHost { host, steady_at_ms } = ChangeReturnHost(ChangeReturnHostArgs) body_as_return_host;
    table PutUser body_as_put_user;
    table PutToken body_as_put_token;
    table PutHost body_as_put_host;
}

table! { Command = Command(CommandArgs) "command" { at_ms, change, origin } }

table! { WorkloadRecord = WorkloadRecord(WorkloadRecordArgs) "workload_record" { workload, revision, index, at_ms } }

table! { ManifestRecord = ManifestRecord(ManifestRecordArgs) "manifest_record" { manifest, index, at_ms, objects } }

table! { PolicyRecord = PolicyRecord(PolicyRecordArgs) "policy_record" { version, index, at_ms, document } }

table! { JobEnd = JobEnd(JobEndArgs) "job_end" { succeeded, reason, at_ms } }

choice! { MoveReason = MoveReason { Lost, Unreachable, Drained, Unfit } }

table! { Moved = Moved(MovedArgs) "moved" { from, why, at_ms } }

table! { Assignment = Assignment(AssignmentArgs) "assignment" {
    workload, ordinal, host, index, failures, failed_at_ms, end, moved, number
} }

table! { ClaimRecord = ClaimRecord(ClaimRecordArgs) "claim_record" { namespace, name, host } }

table! { Assignments = Assignments(AssignmentsArgs) "assignments" { assigned, claims } }

choice! { RevisionOutcome = RevisionOutcome { Ready, RolledBack, Failed, Superseded } }

table! { ResolvedImage = ResolvedImage(ResolvedImageArgs) "resolved_image" { reference, id, digest } }

/// An empty list is written as an absent one, as older versions do.
impl Field for ResolvedImages {
    type Slot = Option<WIPOffset<Vector<'static, ForwardsUOffset<fb::ResolvedImage<'static>>>>>;
    type Got<'a> = Option<Vector<'a, ForwardsUOffset<fb::ResolvedImage<'a>>>>;
    fn put(&self, to: &mut Builder) -> Self::Slot {
        (!self.0.is_empty()).then(|| self.0.put(to))
    }
    fn take(got: Self::Got<'_>, _name: &'static str) -> Result<Self, DecodeError> {
        let items = got.into_iter().flatten();
        Ok(Self(
            items.map(ResolvedImage::read).collect::<Result<_, _>>()?,
        ))
    }
}

table! { RevisionEnd = RevisionEnd(RevisionEndArgs) "revision_end" { outcome, reason, at_ms } }

table! { RevisionRecord = RevisionRecord(RevisionRecordArgs) "revision_record" {
    workload, revision, index, at_ms, who, cause, objects, end, images, pinned
} }

table! { HostRevision = HostRevision(HostRevisionArgs) "host_revision" { host, index, number } }

choice! { RolloutPhase = RolloutPhase { Rolling, RollingBack, Halted } }

table! { RolloutRecord = RolloutRecord(RolloutRecordArgs) "rollout_record" {
    workload, base, hosts, phase, paused, moved_at_ms
} }

table! { Revisions = Revisions(RevisionsArgs) "revisions" { objects, revisions, rollouts } }

table! { ObjectIdentity = ObjectIdentity(ObjectIdentityArgs) "object_identity" { uid, generation, index } }

table! { Identities = Identities(IdentitiesArgs) "identities" { created, objects } }

table! { Snapshot = Snapshot(SnapshotArgs) "snapshot" {
    cluster, hosts, manifests, workloads, tokens, access, policy, former, level, assignments, revisions,
    identities
} }

//! The examples at the end of each command's help, which are also the EXAMPLES section of its manual page.
//!
//! Pure: text.

pub(super) const APPLY: &str = "\
Examples:
  # Apply a manifest and wait until it is rolled out
  beemesh apply -f web.yaml --wait

  # Wait at most five minutes
  beemesh apply -f web.yaml --wait 5m

  # Show what would change
  beemesh apply -f web.yaml --dry-run

  # Delete the objects of the manifest that the file no longer contains
  beemesh apply -f web.yaml --prune

  # Apply standard input as manifest `web`
  cat pod.yaml config.yaml | beemesh apply -f - --name web

  # Apply one file, and then all files of a folder, each as a manifest of its own
  beemesh apply -f settings.yaml -f shop/ --wait

  # Apply what a web server has
  beemesh apply -f https://example.com/web.yaml";

pub(super) const DIFF: &str = "\
Examples:
  # Show what an apply would change
  beemesh diff -f web.yaml

  # The same for all files of a folder and of the folders in it
  beemesh diff -f shop/ -R

Exit status:
  0  No differences
  1  Differences
  2  Usage error
  3  The gateway could not be reached
  4  The comparison failed";

pub(super) const GET: &str = "\
Examples:
  # List all workloads
  beemesh get workloads

  # Display one workload, host by host
  beemesh get workloads web

  # List the hosts as this host knows them, without asking others
  beemesh get hosts --stale

  # Print the audit log as JSON
  beemesh get audit -o json";

pub(super) const STATUS: &str = "\
Examples:
  # Display this host's view of the cluster
  beemesh status";

pub(super) const DELETE: &str = "\
Examples:
  # Delete a workload and wait until no host runs it
  beemesh delete web --wait

  # Delete everything that a manifest file applies
  beemesh delete -f web.yaml

  # Delete everything that the files of a folder apply
  beemesh delete -f shop/

  # Delete a manifest by name
  beemesh delete --manifest web";

pub(super) const ROLLOUT_STATUS: &str = "\
Examples:
  # Wait until the latest revision is rolled out
  beemesh rollout status web

  # Show how far it is
  beemesh rollout status web --watch=false";

pub(super) const ROLLOUT_HISTORY: &str = "\
Examples:
  # List the kept revisions of a workload
  beemesh rollout history web

  # Show what revision 6 runs with
  beemesh rollout history web --revision 6";

pub(super) const ROLLOUT_UNDO: &str = "\
Examples:
  # Return to the last revision that was ready
  beemesh rollout undo web

  # Return to revision 6
  beemesh rollout undo web --to-revision 6";

pub(super) const ROLLOUT_PAUSE: &str = "\
Examples:
  # Look at the hosts that have the new revision before the others get it
  beemesh rollout pause web";

pub(super) const ROLLOUT_RESUME: &str = "\
Examples:
  # Go on
  beemesh rollout resume web";

pub(super) const ROLLOUT_RESTART: &str = "\
Examples:
  # Restart a workload host by host
  beemesh rollout restart web";

pub(super) const RESTART: &str = "\
Examples:
  # Restart a workload host by host
  beemesh restart web
  beemesh rollout status web";

pub(super) const STOP: &str = "\
Examples:
  # End all pods of a workload, and wait until they have ended
  beemesh stop web
  beemesh rollout status web";

pub(super) const START: &str = "\
Examples:
  # Start it again, and wait until its pods are ready
  beemesh start web
  beemesh rollout status web";

pub(super) const SCALE: &str = "\
Examples:
  # Run two pods in the cluster
  beemesh scale web --replicas 2";

pub(super) const LOGS: &str = "\
Examples:
  # Follow the logs of a workload
  beemesh logs web -f

  # Print the last 100 lines from host h2
  beemesh logs web --host h2 --tail 100";

pub(super) const BACKUP: &str = "\
Examples:
  # Write a backup that only this user can read
  umask 077; beemesh backup > cluster.backup";

pub(super) const RESTORE: &str = "\
Examples:
  # Restore a backup into a new cluster
  beemesh restore cluster.backup";

pub(super) const JOIN: &str = "\
Examples:
  # Join the cluster that issued the token
  beemesh join beemesh1-...

  # Take the place of a host whose disk was lost
  beemesh join beemesh1-... --replace h2";

pub(super) const COMPLETION: &str = "\
Examples:
  # Load completions into the running bash
  source <(beemesh completion bash)";

pub(super) const HOST_LIST: &str = "\
Examples:
  # List the hosts of the cluster
  beemesh host list";

pub(super) const HOST_SHOW: &str = "\
Examples:
  # Display the labels, addresses and versions of host h2
  beemesh host show h2";

pub(super) const HOST_LABEL: &str = "\
Examples:
  # Set a label
  beemesh host label h2 disk=ssd

  # Remove it
  beemesh host label h2 disk-";

pub(super) const HOST_DRAIN: &str = "\
Examples:
  # Drain a host before maintenance
  beemesh host drain h2 --wait 5m

  # Also move replicas whose data is on the host
  beemesh host drain h2 --move-without-data";

pub(super) const HOST_UNDRAIN: &str = "\
Examples:
  # Let a host run workloads again after maintenance
  beemesh host undrain h2";

pub(super) const HOST_LOST: &str = "\
Examples:
  # Start the pods of a host that has burnt down elsewhere, without a wait
  beemesh host lost h2";

pub(super) const HOST_ROTATE_KEY: &str = "\
Examples:
  # Rotate the identity key of this host
  beemesh host rotate-key";

pub(super) const HOST_REMOVE: &str = "\
Examples:
  # Drain a host, then remove it
  beemesh host drain h2 && beemesh host remove h2";

pub(super) const POLICY_SHOW: &str = "\
Examples:
  # Save the policy to a file
  beemesh policy show > policy.yaml";

pub(super) const POLICY_SET: &str = "\
Examples:
  # Replace the policy, unless somebody else replaced version 3 before
  beemesh policy set -f policy.yaml --if-version 3";

pub(super) const TOKEN_CREATE: &str = "\
Examples:
  # Create a token for one host, valid for one hour
  beemesh token create

  # Create a token for five hosts, valid for one day
  beemesh token create --uses 5 --ttl 1d";

pub(super) const TOKEN_LIST: &str = "\
Examples:
  # List valid join tokens
  beemesh token list";

pub(super) const TOKEN_REVOKE: &str = "\
Examples:
  # Revoke a join token
  beemesh token revoke 1f8a03c2b7d95e64";

pub(super) const USER_CREATE: &str = "\
Examples:
  # Create a user who may apply manifests
  umask 077; beemesh user create ci --role deployer > ci.yaml

  # Connect as that user
  beemesh --config ci.yaml get workloads";

pub(super) const USER_LIST: &str = "\
Examples:
  # List users and when their certificates expire
  beemesh user list";

pub(super) const USER_REVOKE: &str = "\
Examples:
  # Revoke a user's certificate
  beemesh user revoke ci";

pub(super) const USER_RESET: &str = "\
Examples:
  # Replace the certificate authority
  beemesh user reset";

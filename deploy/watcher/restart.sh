#!/bin/sh
# Run by watcher.py as: restart.sh NAME down|back. First the service; where the host does not answer, the whole machine.
set -eu
name=$1 what=$2
[ "$what" = down ] || exit 0
ssh -o BatchMode=yes -o ConnectTimeout=15 "watcher@$name.example.com" sudo systemctl restart acme && exit 0
# Whatever your provider has to start a machine again; for example:
#   hcloud server reset "$name"    doctl compute droplet-action power-cycle ID    aws ec2 reboot-instances --instance-ids ID
echo "$name does not answer, and there is no command here that starts its machine again" >&2
exit 1

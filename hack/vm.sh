#!/usr/bin/env bash
# mk8s on a machine of its own, with systemd, cgroup v2, a shared / and a disk that loses power: what namespaces can't show.
# A QEMU machine by software emulation (TCG), 13 to 45 times slower than this one, and therefore no part of test.sh.
#   vm.sh image          builds kernel, initrd and root disk once (two minutes, 2 GB), in MK8S_VM_DIR
#   vm.sh test BINARY    init, a workload, a mount of the host's that a pod has, a power cut, reset; ends with "vm: N passed, N failed"
#   vm.sh boot | ssh COMMAND… | cut | clean     the machine alone: on, a command in it, off, with an empty disk again
# Needs root and Debian's packages, which it installs. The release binary: a debug build takes minutes for each step.
set -euo pipefail
self=$(readlink -f "$0")
repository=$(dirname "$(dirname "$self")")
dir=${MK8S_VM_DIR:-$HOME/.cache/mk8s/vm}
netns=mk8s-vm
address=10.99.0.2

image() {
  "$repository/hack/packages.sh" qemu-system-x86 qemu-utils mmdebstrap cpio kmod lz4 busybox-static openssh-client e2fsprogs iproute2 python3
  mkdir -p "$dir"
  cd "$dir"
  [ -f base.qcow2 ] && return
  kernel_image
  [ -f id ] || ssh-keygen -q -t ed25519 -N '' -f id
  root_disk
  initrd
}

# Debian's cloud kernel, out of its package and uncompressed: QEMU starts an ELF kernel without a boot loader.
kernel_image() {
  local package
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2; exit }')
  version=${package#linux-image-}
  rm -rf k
  apt-get download -q "$package"
  dpkg-deb -x linux-image-*.deb k
  rm -f linux-image-*.deb
  # Its payload is legacy lz4, of which lz4 says that the end is missing.
  python3 - "k/boot/vmlinuz-$version" <<'PY' | lz4 -dcq - >vmlinux 2>/dev/null || true
import struct, sys
data = open(sys.argv[1], 'rb').read()
offset, length = struct.unpack_from('<II', data, 0x248)
payload = (data[0x1f1] + 1) * 512 + offset
sys.stdout.buffer.write(data[payload:payload + length - 4])
PY
  [ "$(head -c 4 vmlinux | tail -c 3)" = ELF ] || { echo "error: $package has no kernel as expected" >&2; exit 1; }
}

root_disk() {
  mmdebstrap --quiet --variant=minbase bookworm rootfs.tar --include="systemd,systemd-sysv,dbus,udev,iproute2,nftables,iptables,\
conntrack,containerd,runc,procps,kmod,curl,busybox-static,openssh-server,ca-certificates"
  rm -rf rootfs
  mkdir rootfs
  tar -C rootfs -xf rootfs.tar
  rm rootfs.tar
  mkdir -p rootfs/lib/modules
  cp -a "k/lib/modules/$version" rootfs/lib/modules/
  depmod -b rootfs "$version"
  mkdir -p -m 700 rootfs/root/.ssh
  cp id.pub rootfs/root/.ssh/authorized_keys
  : >rootfs/etc/fstab
  echo vm >rootfs/etc/hostname
  printf '127.0.0.1 localhost vm\n' >rootfs/etc/hosts
  cat >rootfs/etc/systemd/system/address.service <<UNIT
[Unit]
DefaultDependencies=no
Before=network.target network-online.target ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'modprobe virtio_net; until [ -d /sys/class/net/eth0 ]; do sleep 0.2; done; ip link set lo up; ip address add $address/24 dev eth0; ip link set eth0 up; ip route add default via 10.99.0.1'
[Install]
WantedBy=multi-user.target network-online.target
UNIT
  chroot rootfs systemctl enable --quiet address.service ssh.service containerd.service
  chroot rootfs systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
  rm -f root.img
  truncate -s 3G root.img
  mke2fs -q -t ext4 -d rootfs root.img
  qemu-img convert -O qcow2 root.img base.qcow2.new
  rm -rf root.img rootfs
  mv base.qcow2.new base.qcow2
}

# Finds the disk and starts its init.
initrd() {
  local number=10 module
  rm -rf ird
  mkdir -p ird/{bin,proc,sys,dev,root,mod}
  cp "$(command -v busybox)" ird/bin/busybox
  ln -s busybox ird/bin/sh
  for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
    cp "$(find k/lib/modules -name "$module.ko")" "ird/mod/$number-$module.ko"
    number=$((number + 1))
  done
  cat >ird/init <<'INIT'
#!/bin/sh
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t devtmpfs dev /dev
for module in /mod/*.ko; do $B insmod $module; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 99 ]; do $B usleep 20000; tries=$((tries + 1)); done
$B mount -t ext4 /dev/vda /root
$B umount /proc
$B mount --move /dev /root/dev
exec $B switch_root /root /sbin/init
INIT
  chmod +x ird/init
  (cd ird && find . | cpio -o -H newc 2>/dev/null | gzip -1 >../initrd.gz)
  rm -rf ird k
}

boot() {
  cd "$dir"
  if ! ip netns list | grep -qw $netns; then
    ip netns add $netns
    ip -n $netns link set lo up
    ip -n $netns tuntap add tap0 mode tap
    ip -n $netns address add 10.99.0.1/24 dev tap0
    ip -n $netns link set tap0 up
  fi
  [ -f files.img ] || mke2fs -q -t ext4 files.img 4M
  [ -f disk.qcow2 ] || qemu-img create -q -f qcow2 -F qcow2 -b base.qcow2 disk.qcow2
  # cache=writeback: what the guest did not sync is QEMU's, and is lost with it as with a real disk's power.
  setsid ip netns exec $netns qemu-system-x86_64 -M q35,accel=tcg -cpu max -smp 2 -m 1536 -nodefaults -no-user-config \
    -display none -no-reboot -kernel vmlinux -initrd initrd.gz \
    -append "console=ttyS0 panic=-1 quiet mitigations=off net.ifnames=0" -serial "file:serial.log" \
    -drive file=disk.qcow2,if=none,id=d0,format=qcow2,cache=writeback -device virtio-blk-pci,drive=d0 \
    -drive file=files.img,if=none,id=d1,format=raw,readonly=on -device virtio-blk-pci,drive=d1 \
    -netdev tap,id=n0,ifname=tap0,script=no,downscript=no -device virtio-net-pci,netdev=n0,romfile= \
    -device virtio-rng-pci </dev/null >qemu.log 2>&1 &
  local pid=$!
  echo "$pid $(birth $pid)" >pid
  local tries=0
  until in_vm systemctl is-active --quiet containerd 2>/dev/null; do
    tries=$((tries + 1))
    if [ $tries -gt 300 ] || ! [ -d "/proc/$pid" ]; then
      echo "error: the machine does not come up: see $dir/serial.log and qemu.log" >&2
      return 1
    fi
    sleep 1
  done
}

# When a process began, and in which run of the host: what tells it from a later one of its number.
birth() { echo "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '{ print $20 }')@$(cat /proc/sys/kernel/random/boot_id)"; }

cut() {
  local pid born
  [ -f "$dir/pid" ] || return 0
  read -r pid born <"$dir/pid" || true
  # An earlier form of the file names no birth: then what the process is called tells.
  if [ -z "$born" ] && grep -qz "^qemu-system-" "/proc/$pid/cmdline" 2>/dev/null; then born=$(birth "$pid"); fi
  # The file outlives a reboot, and then the number is a stranger's.
  if [ -n "$pid" ] && [ "$(birth "$pid")" = "$born" ]; then
    kill -9 -- "-$pid" 2>/dev/null || true
    while [ "$(birth "$pid")" = "$born" ]; do sleep 0.1; done
  fi
  rm -f "$dir/pid"
}

clean() { cut; rm -f "$dir/disk.qcow2"; ip netns del $netns 2>/dev/null || true; }

in_vm() {
  ip netns exec $netns ssh -q -i "$dir/id" -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o ConnectTimeout=10 root@$address "$(printf '%q ' "$@")"
}
# Files for the machine, on a disk of their own, since ssh needs minutes for them; a boot is to follow.
give() {
  local size
  size=$(du -cm "$@" | awk 'END { print $1 + 20 }')
  rm -rf "$dir/files" "$dir/files.img"
  mkdir "$dir/files"
  cp "$@" "$dir/files"
  mke2fs -q -t ext4 -d "$dir/files" "$dir/files.img" "${size}M"
  rm -rf "$dir/files"
}

verify() {
  local binary=$1
  # Not local: the trap and the checks use them.
  here=$repository/tests/e2e
  work=$(mktemp -d)
  clean
  trap 'clean; rm -rf "$work"' EXIT
  image
  # The checks of tests/e2e, with the machine as their only host.
  hosts=$work/hosts
  printf '#!/bin/sh\nshift 2\nexec %q ssh "$@"\n' "$self" >"$hosts"
  chmod +x "$hosts"
  # shellcheck source=../tests/e2e/lib.sh
  source "$here/lib.sh"
  on() { shift; timeout 600 "$hosts" exec 1 "$@"; }
  state_script=/root/state.sh
  set +e
  "$repository/hack/busybox-image.sh" "$work/busybox.tar" mk8s.local/busybox:1
  cp "$binary" "$work/mk8s"
  cp "$(command -v kubectl)" "$work/kubectl"
  chmod 755 "$work/mk8s" "$work/kubectl"
  give "$work/busybox.tar" "$work/mk8s" "$work/kubectl" "$here/state.sh" "$here/vm.yaml"
  boot || exit 1
  in_vm sh -c 'mkdir /files; mount -o ro /dev/vdb /files; cp /files/*.* /files/mk8s /files/kubectl /root; mv /root/kubectl /usr/local/bin; umount /files; rmdir /files'
  check "import" on 1 ctr -n k8s.io images import /root/busybox.tar
  check "a file system of the host's below /mnt" on 1 sh -c 'mkdir -p /mnt/data/inner && mount -t tmpfs tmpfs /mnt/data/inner && touch /mnt/data/inner/theirs'
  shows "/ is shared" "^shared$" on 1 findmnt -n -o PROPAGATION /
  on 1 bash /root/state.sh >"$work/before"

  echo "# init, by systemd"
  check "init" on 1 /root/mk8s init
  shows "the unit runs" "^active$" on 1 systemctl is-active mk8s
  shows "the node is Ready" "vm +Ready" on 1 kubectl get nodes
  check "apply" on 1 kubectl apply -f /root/vm.yaml
  check "the workload runs" on 1 kubectl rollout status deploy/web --timeout=300s
  check "a pod with a folder of the host's in which something is mounted" on 1 kubectl wait --for=condition=Ready pod/mounts --timeout=300s

  echo "# a start that fails is told at once"
  check "stop" on 1 mk8s stop
  check "lose the port" on 1 sh -c 'systemd-run --quiet --unit=taker busybox httpd -f -p 6443; sleep 2'
  refuses "start says why" "mk8s ended at once: error: .*listen on .*:6443" on 1 mk8s start
  check "free the port" on 1 sh -c 'systemctl stop taker mk8s; mk8s start'

  echo "# a power cut right after a pod began"
  check "another pod" on 1 kubectl run late --image=mk8s.local/busybox:1 --image-pull-policy=IfNotPresent -- sleep 100000
  check "it runs" on 1 kubectl wait --for=condition=Ready pod/late --timeout=300s
  cut
  boot || exit 1
  all_run() { on 1 kubectl rollout status deploy/web --timeout=10s && on 1 kubectl wait --for=condition=Ready pod/late --timeout=10s; }
  check "everything runs again after it" eventually 600 all_run
  sandboxes() { on 1 ctr -n k8s.io containers ls -q | sort; }
  calm=$(sandboxes); sleep 20
  check "and nothing is made anew" test -z "$(comm -13 <(echo "$calm") <(sandboxes))"
  check "the host's mount is made again" on 1 sh -c 'mount -t tmpfs tmpfs /mnt/data/inner && touch /mnt/data/inner/theirs'

  echo "# reset"
  check "delete the pod with the folder" on 1 kubectl delete pod mounts --timeout=300s
  check "the host's own mount is there" on 1 ls /mnt/data/inner/theirs
  check "reset with pods that run" on 1 /root/mk8s reset --force
  check "it is still there" on 1 ls /mnt/data/inner/theirs
  refuses "the unit is gone" "could not be found|not-found|inactive" on 1 systemctl status mk8s
  same "the machine is as it was" "$work/before" 1
  ((failed)) && on 1 tail -n 60 /var/log/mk8s.log
  echo "vm: $passed passed, $failed failed"
  ((failed == 0))
}

case ${1:-} in
  image) image ;;
  test) verify "$(readlink -f "$2")" ;;
  boot) boot ;;
  cut) cut ;;
  clean) clean ;;
  ssh) shift; in_vm "$@" ;;
  *) sed -n '2,8p' "$self"; exit 2 ;;
esac

#!/bin/bash
# WireGuard, and forwarding. The private key is fetched, never in here: whoever may describe instances reads this.
set -euo pipefail

# The VPC's DNS servers are the recovered ones, which may not be there yet.
mkdir -p /etc/systemd/resolved.conf.d
printf '[Resolve]\nDNS=169.254.169.253\nDomains=~.\n' >/etc/systemd/resolved.conf.d/reach.conf
systemctl restart systemd-resolved

# The address comes a moment after the instance.
until curl --silent --max-time 5 --output /dev/null https://ssm.${region}.amazonaws.com; do sleep 3; done

if command -v dnf >/dev/null; then
    dnf install -y wireguard-tools nftables
else
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y wireguard-tools nftables awscli
fi

umask 077
mkdir -p /etc/wireguard
key=$(aws ssm get-parameter --region '${region}' --name '${parameter}' --with-decryption --query Parameter.Value --output text)
%{ if internet ~}
# What recovered VMs send to the Internet leaves with this machine's address.
device=$(ip -o route show default | awk '{ print $5; exit }')
cat >/etc/wireguard/out.nft <<END
table ip reach {
    chain out {
        type nat hook postrouting priority srcnat;
        oifname "$device" ip daddr != { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 } masquerade
    }
}
END
%{ endif ~}
cat >/etc/wireguard/wg0.conf <<END
[Interface]
Address = ${address}
ListenPort = ${port}
PrivateKey = $key
%{ if internet ~}
PostUp = nft -f /etc/wireguard/out.nft
PostDown = nft delete table ip reach
%{ endif ~}
%{ for name, peer in peers ~}

# ${name}
[Peer]
PublicKey = ${peer.public_key}
AllowedIPs = ${peer.ranges}
%{ endfor ~}
END

echo net.ipv4.ip_forward=1 >/etc/sysctl.d/90-reach.conf
sysctl --system >/dev/null
systemctl enable --now wg-quick@wg0

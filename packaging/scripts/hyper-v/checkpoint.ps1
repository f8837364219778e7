# UNTESTED: written from Microsoft's documentation of the Hyper-V module, never run.
# Called by hook.sh over ssh, on the Hyper-V host: makes the production checkpoint "sparesite" of a VM, or
# removes it. Removing merges what the VM wrote meanwhile back into its .vhdx; Hyper-V does that while it runs.
#
# A production checkpoint is made by VSS in a Windows guest, by a freeze of the file systems in a Linux guest
# (hyperv-daemons). The VM has to be set to ProductionOnly, or Hyper-V falls back to a standard checkpoint
# without a word:  Set-VM -Name db -CheckpointType ProductionOnly -AutomaticCheckpointsEnabled $false
param(
    [Parameter(Mandatory)] [ValidateSet('before', 'after')] [string] $Hook,
    [Parameter(Mandatory)] [string] $Name
)
Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'
$checkpoint = 'sparesite'
# A hook has 120 s.
$deadline = (Get-Date).AddSeconds(100)

function Stop-WithWords([string] $words) {
    [Console]::Error.WriteLine($words)
    exit 1
}

function Remove-Ours {
    Get-VMSnapshot -VMName $Name | Where-Object Name -eq $checkpoint | Remove-VMSnapshot
}

# A disk that still has a parent is not merged yet: its .vhdx is not what the VM has.
function Test-Merged {
    foreach ($drive in Get-VMHardDiskDrive -VMName $Name) {
        if ($drive.Path -like '*.avhdx') { return $false }
    }
    return $true
}

function Wait-Merged {
    while (-not (Test-Merged)) {
        if ((Get-Date) -gt $deadline) { return $false }
        Start-Sleep -Seconds 1
    }
    return $true
}

try {
    $vm = Get-VM -Name $Name
    if ($Hook -eq 'after') {
        Remove-Ours
        # Merging may take longer than a hook may. The next one waits for it.
        $null = Wait-Merged
        exit 0
    }

    if ($vm.CheckpointType -ne 'ProductionOnly') {
        Stop-WithWords "$Name makes $($vm.CheckpointType) checkpoints: Set-VM -Name $Name -CheckpointType ProductionOnly"
    }
    $others = @(Get-VMSnapshot -VMName $Name | Where-Object Name -ne $checkpoint)
    if ($others.Count -gt 0) {
        Stop-WithWords "$Name has other checkpoints ($($others.Name -join ', ')): its .vhdx is not its newest state. Remove them"
    }
    foreach ($drive in Get-VMHardDiskDrive -VMName $Name) {
        if ($null -ne $drive.DiskNumber) {
            Stop-WithWords "$Name has a pass-through disk ($($drive.ControllerType) $($drive.ControllerNumber):$($drive.ControllerLocation)): no checkpoint has it"
        }
    }
    # Of a gateway that was killed.
    Remove-Ours
    if (-not (Wait-Merged)) {
        Stop-WithWords "$Name has a disk that is still being merged (.avhdx): try again later"
    }
    Checkpoint-VM -Name $Name -SnapshotName $checkpoint
    exit 0
}
catch {
    Stop-WithWords $_.Exception.Message
}

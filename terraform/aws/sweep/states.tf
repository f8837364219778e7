# The states, made for each kind of thing from one pattern:
#
#   Find → any? → List → Seen → Delete each, errors passed over → more pages? → the next kind
#
# A round goes over all kinds; what cannot go yet (a snapshot whose image is still there, a volume still attached) goes in
# a later one. Two rounds in a row that find nothing end it, since what was made a moment ago may not be listed yet.

locals {
  tags = [
    { "Name" = "tag:sparesite-run", "Values.$" = "States.Array($.run)" },
    { "Name" = "tag:sparesite-kind", "Values" = ["test"] },
  ]

  # In the order in which they can go. Pages are small: what a task returns must stay under 256 KiB.
  kinds = [
    {
      name   = "Instances"
      first  = "$.page.Reservations[0]"
      find   = "describeInstances"
      ask    = { MaxResults = 20 }
      filter = [{ "Name" = "instance-state-name", "Values" = ["pending", "running", "shutting-down", "stopping", "stopped"] }]
      ids    = "$.page.Reservations[*].Instances[*].InstanceId"
      delete = "terminateInstances"
      what   = { "InstanceIds.$" = "States.Array($)" }
    },
    {
      name   = "Images"
      first  = "$.page.Images[0]"
      find   = "describeImages"
      ask    = { MaxResults = 20, Owners = ["self"] }
      filter = []
      ids    = "$.page.Images[*].ImageId"
      delete = "deregisterImage"
      what   = { "ImageId.$" = "$" }
    },
    {
      name   = "Snapshots"
      first  = "$.page.Snapshots[0]"
      find   = "describeSnapshots"
      ask    = { MaxResults = 20, OwnerIds = ["self"] }
      filter = []
      ids    = "$.page.Snapshots[*].SnapshotId"
      delete = "deleteSnapshot"
      what   = { "SnapshotId.$" = "$" }
    },
    {
      name   = "Volumes"
      first  = "$.page.Volumes[0]"
      find   = "describeVolumes"
      ask    = { MaxResults = 20 }
      filter = []
      ids    = "$.page.Volumes[*].VolumeId"
      delete = "deleteVolume"
      what   = { "VolumeId.$" = "$" }
    },
    {
      name   = "Interfaces"
      first  = "$.page.NetworkInterfaces[0]"
      find   = "describeNetworkInterfaces"
      ask    = { MaxResults = 20 }
      filter = []
      ids    = "$.page.NetworkInterfaces[*].NetworkInterfaceId"
      delete = "deleteNetworkInterface"
      what   = { "NetworkInterfaceId.$" = "$" }
    },
  ]

  sdk = "arn:${local.partition}:states:::aws-sdk:ec2"

  # Throttled, or a passing fault of the service: again, slower each time.
  again = [{ ErrorEquals = ["States.ALL"], IntervalSeconds = 2, BackoffRate = 2, MaxAttempts = 5, MaxDelaySeconds = 60 }]

  next = { for index, kind in local.kinds : kind.name => index + 1 < length(local.kinds) ? "Find${local.kinds[index + 1].name}" : "NothingSeen" }

  kind_states = merge([
    for kind in local.kinds : {
      "Find${kind.name}" = {
        Type       = "Task"
        Resource   = "${local.sdk}:${kind.find}"
        Parameters = merge(kind.ask, { Filters = concat(local.tags, kind.filter) })
        ResultPath = "$.page"
        Retry      = local.again
        Next       = "Any${kind.name}"
      }
      "FindMore${kind.name}" = {
        Type       = "Task"
        Resource   = "${local.sdk}:${kind.find}"
        Parameters = merge(kind.ask, { Filters = concat(local.tags, kind.filter), "NextToken.$" = "$.page.NextToken" })
        ResultPath = "$.page"
        Retry      = local.again
        Catch      = [{ ErrorEquals = ["States.ALL"], ResultPath = null, Next = "Lost${kind.name}" }]
        Next       = "Any${kind.name}"
      }
      # A token may not outlive what it stands at, which was removed by now: the next round begins anew.
      "Lost${kind.name}" = {
        Type       = "Pass"
        Result     = 0
        ResultPath = "$.quiet"
        Next       = local.next[kind.name]
      }
      "Any${kind.name}" = {
        Type    = "Choice"
        Choices = [{ Variable = kind.first, IsPresent = true, Next = "List${kind.name}" }]
        Default = "More${kind.name}"
      }
      "List${kind.name}" = {
        Type       = "Pass"
        Parameters = { "ids.$" = kind.ids }
        ResultPath = "$.found"
        Next       = "Seen${kind.name}"
      }
      "Seen${kind.name}" = {
        Type       = "Pass"
        Result     = 0
        ResultPath = "$.quiet"
        Next       = "Delete${kind.name}"
      }
      "Delete${kind.name}" = {
        Type           = "Map"
        ItemsPath      = "$.found.ids"
        MaxConcurrency = 4
        ItemProcessor = {
          ProcessorConfig = { Mode = "INLINE" }
          StartAt         = "Delete${kind.name}One"
          States = {
            "Delete${kind.name}One" = {
              Type       = "Task"
              Resource   = "${local.sdk}:${kind.delete}"
              Parameters = kind.what
              ResultPath = null
              Catch      = [{ ErrorEquals = ["States.ALL"], ResultPath = null, Next = "Delete${kind.name}Later" }]
              End        = true
            }
            "Delete${kind.name}Later" = { Type = "Pass", End = true }
          }
        }
        ResultPath = null
        Next       = "More${kind.name}"
      }
      "More${kind.name}" = {
        Type    = "Choice"
        Choices = [{ Variable = "$.page.NextToken", IsPresent = true, Next = "FindMore${kind.name}" }]
        Default = local.next[kind.name]
      }
    }
  ]...)

  definition = {
    Comment = "Removes what the test run of the input made: {\"run\": \"<run id>\"}"
    StartAt = "RunGiven"
    # The rounds end it sooner; this is for a task that hangs.
    TimeoutSeconds = 7200
    States = merge(local.kind_states, {
      # Wildcards of EC2's filters would take other runs' tests too. A split run id is what it was only if it has none;
      # an empty one has no first part.
      RunGiven = {
        Type = "Choice"
        Choices = [{
          And = [
            { Variable = "$.run", IsPresent = true },
            { Variable = "$.run", IsString = true },
          ]
          Next = "RunSplit"
        }]
        Default = "NoRun"
      }
      RunSplit = {
        Type       = "Pass"
        Parameters = { "run.$" = "$.run", "parts.$" = "States.StringSplit($.run, '*?')" }
        Next       = "RunPlain"
      }
      RunPlain = {
        Type = "Choice"
        Choices = [{
          And = [
            { Variable = "$.parts[0]", IsPresent = true },
            { Variable = "$.parts[0]", StringEqualsPath = "$.run" },
            { Not = { Variable = "$.run", StringEquals = "" } },
          ]
          Next = "Begin"
        }]
        Default = "NoRun"
      }
      NoRun = { Type = "Fail", Error = "NoRun", Cause = "The input names no run, or names several by a wildcard" }
      Begin = {
        Type       = "Pass"
        Parameters = { "run.$" = "$.run", quiet = 0, rounds = 0 }
        Next       = "Round"
      }
      Round = {
        Type       = "Pass"
        Parameters = { "run.$" = "$.run", "quiet.$" = "States.MathAdd($.quiet, 1)", "rounds.$" = "States.MathAdd($.rounds, 1)" }
        Next       = "Find${local.kinds[0].name}"
      }
      NothingSeen = {
        Type = "Choice"
        Choices = [
          { Variable = "$.quiet", NumericGreaterThanEquals = 2, Next = "AllGone" },
          { Variable = "$.rounds", NumericGreaterThanEquals = var.rounds, Next = "SomethingLeft" },
        ]
        Default = "Pause"
      }
      Pause = {
        Type    = "Wait"
        Seconds = var.pause_seconds
        Next    = "Round"
      }
      AllGone       = { Type = "Succeed" }
      SomethingLeft = { Type = "Fail", Error = "SomethingLeft", Cause = "Not everything of the test could be removed: look for the tag sparesite-run" }
    })
  }
}

// Judges the rendered documents by the two tables, with @cloud-copilot/iam-simulate from the folder in IAM_SIMULATE.
//
//   node judge.mjs DOCUMENTS.json must-allow.json must-deny.json
//
// A row stands for each of its actions on each of its resources. `{name}` is a name of the documents. Where a row's context
// names a key that the action does not know, or the action does not take the resource, the row is wrong and fails too: a
// denial for a misspelt reason would prove nothing.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(process.env.IAM_SIMULATE, 'package.json'))
const { runSimulation } = require('@cloud-copilot/iam-simulate')
const [documents, mustAllow, mustDeny] = process.argv.slice(2).map((file) => JSON.parse(fs.readFileSync(file, 'utf8')))
const { principals, names } = documents

// Not made by terraform: they carry the widest policy, so that what stops them is the bucket's or the key's own policy.
const everything = [{ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] }]
for (const name of ['administrator', 'somebody']) {
  const arn = `arn:aws:iam::${names.account}:role/${name === 'administrator' ? 'terraform' : name}`
  principals[name] = { arn, kind: 'role', policies: everything }
}
const anyContext = ['aws:PrincipalArn', 'aws:SecureTransport', 'aws:MultiFactorAuthPresent', 'aws:MultiFactorAuthAge', 'aws:SourceIp', 'aws:SourceAccount', 'aws:SourceArn']

const fillIn = (value) =>
  Array.isArray(value)
    ? value.map(fillIn)
    : value.replace(/\{([a-z0-9-]+)\}/g, (_, name) => {
        if (!(name in names)) throw new Error(`no name {${name}} in the documents`)
        return names[name]
      })
const list = (value) => (Array.isArray(value) ? value : [value])

function resourcePolicy(action, resource) {
  if (action === 'sts:AssumeRole') return Object.values(principals).find((each) => each.arn === resource)?.trust
  if (resource.startsWith(names.bucket)) return documents.bucket_policy
  return documents.keys[resource]
}

async function judge(row, action, resource) {
  const principal = principals[row.who]
  if (!principal && !row.who.includes('.')) throw new Error(`no principal ${row.who}`)
  const context = Object.fromEntries(Object.entries(row.context ?? {}).map(([key, value]) => [key, fillIn(value)]))
  if (action.startsWith('s3:')) context['aws:SecureTransport'] ??= 'true'
  if (action === 's3:PutObject') context['s3:ObjectCreationOperation'] ??= 'true'
  if (principal) context['aws:PrincipalArn'] = principal.arn
  const session = principal && principal.kind === 'role' ? principal.arn.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/') + '/s' : principal?.arn
  const answer = await runSimulation({
    request: { principal: session ?? row.who, action, resource: { resource, accountId: names.account }, contextVariables: context },
    identityPolicies: (principal?.policies ?? []).map((policy, index) => ({ name: `policy${index}`, policy })),
    serviceControlPolicies: [],
    resourceControlPolicies: [],
    resourcePolicy: resourcePolicy(action, resource),
    vpcEndpointPolicies: row.through ? [{ name: row.through, policy: documents.endpoints[row.through] }] : undefined,
  }, {})
  if (answer.resultType === 'error') return { result: 'error', note: JSON.stringify(answer.errors) }
  const results = answer.resultType === 'single' ? [answer.result] : answer.results
  const ignored = results.flatMap((each) => each.ignoredContextKeys ?? []).filter((key) => !anyContext.some((known) => known.toLowerCase() === key.toLowerCase()))
  if (ignored.length) return { result: 'error', note: `${action} does not know ${ignored.join(', ')}` }
  return { result: answer.overallResult, note: '' }
}

let [passed, failed] = [0, 0]
for (const [table, allowed] of [[mustAllow, true], [mustDeny, false]]) {
  for (const row of table) {
    for (const action of list(row.action)) {
      for (const resource of list(row.resource).map(fillIn)) {
        const { result, note } = await judge(row, action, resource)
        const good = allowed ? result === 'Allowed' : row.by ? result === row.by : /^(Explicitly|Implicitly)Denied$/.test(result)
        if (good) {
          passed += 1
        } else {
          failed += 1
          console.error(`${allowed ? 'must be allowed' : 'must be denied'}: ${row.who} ${action} ${resource}: ${result} ${note}\n    ${row.why}`)
        }
      }
    }
  }
}
console.log(`IAM: ${passed} passed, ${failed} failed`)
process.exit(failed || !passed ? 1 : 0)

// Load for k6, of the same shape as locustfile.py: records of all regimes, some sent twice, some with a bad signature,
// one by one and in bursts.
//
//     python -m bench.records records.ndjson --count 10000
//     k6 run -e RECORDS=records.ndjson -e URL=http://127.0.0.1:8080 -e RATE=50 -e DURATION=60s load/k6.js
//
// What becomes of a record follows from its line: every 20th has its signature spoilt, every 5th is sent again when it was
// answered. Even lines are sent at RATE a second, odd ones in bursts. A wrong answer fails the run; so does having too few
// records. SUMMARY names a file for the counts, as JSON.

import exec from 'k6/execution';
import http from 'k6/http';
import { check } from 'k6';
import { Counter } from 'k6/metrics';
import { SharedArray } from 'k6/data';

const BAD_SIGNATURE_EVERY = 20;
const DUPLICATE_EVERY = 5;
const BURST = 20;
const BURST_INTERVAL = '2s';

const url = `${__ENV.URL}/v1/pcs/submit`;
const duration = __ENV.DURATION || '60s';
const records = new SharedArray('records', () => open(__ENV.RECORDS).trim().split('\n'));
const params = {
  headers: { 'Content-Type': 'application/json' },
  responseCallback: http.expectedStatuses(200, 202, 401),
};

const sent = {
  new: new Counter('pcs_new'),
  duplicate: new Counter('pcs_duplicate'),
  bad_signature: new Counter('pcs_bad_signature'),
};

export const options = {
  scenarios: {
    steady: {
      executor: 'constant-arrival-rate',
      exec: 'steady',
      rate: Number(__ENV.RATE || 50),
      timeUnit: '1s',
      duration,
      preAllocatedVUs: 20,
      maxVUs: 200,
    },
    bursts: {
      executor: 'constant-arrival-rate',
      exec: 'burst',
      rate: 1,
      timeUnit: BURST_INTERVAL,
      duration,
      preAllocatedVUs: 2,
      maxVUs: 10,
    },
  },
  batch: BURST,
  batchPerHost: BURST,
  thresholds: { checks: ['rate==1'] },
};

export function steady() {
  send([2 * exec.scenario.iterationInTest]);
}

export function burst() {
  const first = exec.scenario.iterationInTest * BURST;
  send(Array.from({ length: BURST }, (_, position) => 2 * (first + position) + 1));
}

// Sends the records of some lines at once, then those again that are sent twice.
function send(numbers) {
  const wanted = numbers.map((number) => {
    if (number >= records.length) {
      exec.test.abort(`line ${number + 1} is wanted, the file has ${records.length}: make more records`);
    }
    const kind = number % BAD_SIGNATURE_EVERY === BAD_SIGNATURE_EVERY - 1 ? 'bad_signature' : 'new';
    return { number, kind, body: kind === 'new' ? records[number] : spoilt(records[number]) };
  });
  post(wanted);
  const again = wanted
    .filter((each) => each.kind === 'new' && each.number % DUPLICATE_EVERY === DUPLICATE_EVERY - 1)
    .map((each) => ({ ...each, kind: 'duplicate' }));
  if (again.length) {
    post(again);
  }
}

function post(wanted) {
  const answers = http.batch(
    wanted.map((each) => ['POST', url, each.body, { ...params, tags: { kind: each.kind } }]),
  );
  answers.forEach((answer, position) => {
    const { kind } = wanted[position];
    sent[kind].add(1);
    check(answer, {
      'status is the one that is due': ({ status }) => status === (kind === 'bad_signature' ? 401 : 200),
      'only a duplicate is a replay': ({ headers }) =>
        (headers['Idempotent-Replayed'] === 'true') === (kind === 'duplicate'),
    });
  });
}

// The record with the first character of its signature changed.
function spoilt(body) {
  return body.replace(/"sig":"(.)/, (_, first) => `"sig":"${first === 'A' ? 'B' : 'A'}`);
}

export function handleSummary({ metrics }) {
  const count = (name) => (metrics[name] ? metrics[name].values.count : 0);
  const summary = {
    new: count('pcs_new'),
    duplicate: count('pcs_duplicate'),
    bad_signature: count('pcs_bad_signature'),
    dropped: count('dropped_iterations'),
    wrong: metrics.checks ? metrics.checks.values.fails : 0,
    p95_ms: metrics.http_req_duration.values['p(95)'],
  };
  const text = `${JSON.stringify(summary, null, 2)}\n`;
  return { stdout: text, ...(__ENV.SUMMARY ? { [__ENV.SUMMARY]: text } : {}) };
}

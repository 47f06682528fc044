// The certified oidc-provider over TLS, with what the tests need around it: a log of requests and a switch to answer 429.
// usage: node oidc.mjs '{"port": 1, "cert": "pem", "key": "pem", "clients": [...], "ttl": 15, "format": "jwt"}'
import { readFileSync } from 'node:fs';
import https from 'node:https';

import Provider from 'oidc-provider';

const config = JSON.parse(process.argv[2]);
const issuer = `https://localhost:${config.port}`;
const log = [];
let refusal = null; // {status, headers, body, path, times}

const provider = new Provider(issuer, {
  clients: config.clients.map((client) => ({
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    ...client,
  })),
  scopes: config.scopes,
  ttl: { ClientCredentials: config.ttl },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (ctx, resource) => ({
        scope: config.scopes.join(' '),
        audience: resource,
        accessTokenTTL: config.ttl,
        accessTokenFormat: config.format,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
});

const answer = (res, status, body, headers = {}) => {
  res.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  res.end(typeof body === 'string' ? body : JSON.stringify(body));
};

const body = async (req) => {
  const parts = [];
  for await (const part of req) parts.push(part);
  return Buffer.concat(parts).toString();
};

const handle = provider.callback();
const options = { cert: readFileSync(config.cert), key: readFileSync(config.key) };
const server = https.createServer(options, async (req, res) => {
  const path = new URL(req.url, issuer).pathname;
  if (path === '/-/log') return answer(res, 200, log);
  if (path === '/-/refuse') {
    refusal = JSON.parse(await body(req));
    return answer(res, 200, {});
  }
  const entry = { time: Date.now() / 1000, method: req.method, path, authorization: !!req.headers.authorization,
    traceparent: req.headers.traceparent ?? null };
  log.push(entry);
  res.on('finish', () => { entry.status = res.statusCode; });
  if (refusal && (!refusal.path || refusal.path === path) && refusal.times !== 0) {
    if (refusal.times > 0) refusal.times -= 1;
    return answer(res, refusal.status, refusal.body ?? '', refusal.headers ?? {});
  }
  return handle(req, res);
});
server.listen(config.port, '127.0.0.1', () => console.log(`ready ${issuer}`));

// The certified oidc-provider over TLS, with what the tests need around it: hooks below /-/ that log, refuse, drop and change.
// usage: node oidc.mjs '{"modules": "folder", "port": 1, "cert": "pem", "key": "pem", "clients": [...], "ttl": 15, ...}'
//
// Beyond what the library does: the grants token exchange (RFC 8693) and JWT bearer (RFC 7523), registered as it documents;
// refresh tokens that a hook mints; a clock that is off by config.skew seconds (config.dateSkew: only what Date says); secrets of
// clients that are reset by an API (secrets.mjs).
import { generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import https from 'node:https';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';

import secretsApi from './secrets.mjs';

const config = JSON.parse(process.argv[2]);
const issuer = `https://localhost:${config.port}`;

const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...args) {
    if (args.length) super(...args);
    else super(Date.now());
  }

  static now() { return RealDate.now() + (config.skew ?? 0) * 1000; }
};

const { resolve } = createRequire(join(config.modules, 'here.js'));
const load = (path) => import(pathToFileURL(path));
const { default: Provider, errors } = await load(resolve('oidc-provider'));
const grants = await load(join(dirname(resolve('oidc-provider')), 'helpers', 'grants.js'));
const jose = await load(resolve('jose'));

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const TYPE = 'urn:ietf:params:oauth:token-type:';

const clients = new Map();
const trusted = new Map(); // issuer of assertions -> its keys
const log = [];
let refusal = null; // {status, headers, body, path, times}
let drop = null; // {path, times, half}: handled, but the answer is lost

const setClient = (client) => clients.set(client.client_id, {
  grant_types: ['client_credentials', 'refresh_token', EXCHANGE, JWT_BEARER],
  redirect_uris: [],
  response_types: [],
  ...client,
});
config.clients.forEach(setClient);

// The library keeps a client's JWKS for a minute at least, for as long as the client is the same: here for config.jwksCache seconds.
const withFreshKeys = (client) => (client?.jwks_uri && config.jwksCache
  ? { ...client, client_uri: `https://client.example/${Math.floor(Date.now() / 1000 / config.jwksCache)}` } : client);

// Everything in memory; a refresh token that was used is good for config.leeway seconds more.
const rows = new Map();
class Store {
  constructor(model) { this.model = model; }

  key(id) { return `${this.model}:${id}`; }

  async upsert(id, payload, expiresIn) {
    rows.set(this.key(id), { payload, until: expiresIn ? Date.now() + (expiresIn + 60) * 1000 : Infinity });
  }

  async find(id) {
    if (this.model === 'Client') return withFreshKeys(clients.get(id));
    const row = rows.get(this.key(id));
    if (!row || row.until < Date.now()) return undefined;
    const used = row.consumed !== undefined && Date.now() - row.consumed >= (config.leeway ?? 0) * 1000;
    return used ? { ...row.payload, consumed: Math.floor(row.consumed / 1000) } : row.payload;
  }

  async findByUid() { return undefined; }

  async findByUserCode() { return undefined; }

  async consume(id) { rows.get(this.key(id)).consumed ??= Date.now(); }

  async destroy(id) { rows.delete(this.key(id)); }

  async revokeByGrantId(grantId) {
    for (const [key, { payload }] of rows) if (payload.grantId === grantId) rows.delete(key);
  }
}

const signingKey = (alg, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: `${alg}-1`,
});
const keys = [signingKey('RS256', 'rsa', { modulusLength: 2048 }), signingKey('ES256', 'ec', { namedCurve: 'P-256' })];
const ownKeys = jose.createLocalJWKSet({ keys: keys.map(({ kty, alg, kid, use, n, e, crv, x, y }) => ({ kty, alg, kid, use, n, e, crv, x, y })) });
const claimsOf = new WeakMap();
const certificateOf = (ctx) => ctx.req.socket.getPeerX509Certificate?.();

const subjectMatches = (ctx, property, expected) => {
  const certificate = certificateOf(ctx);
  const names = (certificate.subjectAltName ?? '').split(', ');
  switch (property) {
    case 'tls_client_auth_san_dns': return names.includes(`DNS:${expected}`);
    case 'tls_client_auth_san_uri': return names.includes(`URI:${expected}`);
    case 'tls_client_auth_subject_dn': return certificate.subject.split('\n').reverse().join(',') === expected;
    default: return false;
  }
};

// A server that is strict about assertions: no iat in the future, and no long lives.
const assertionRules = (ctx, claims, header) => {
  const now = Date.now() / 1000;
  if (ctx.req.entry) ctx.req.entry.assertion = { header, claims };
  if (!config.strict) return;
  if (claims.iat > now + 1) throw new errors.InvalidClientAuth('the assertion was issued in the future');
  if (claims.nbf > now) throw new errors.InvalidClientAuth('the assertion is not valid yet');
  if (claims.exp <= now) throw new errors.InvalidClientAuth('the assertion has expired');
  if (claims.exp - claims.iat > 3600) throw new errors.InvalidClientAuth('the assertion lives too long');
};

const mtls = `https://localhost:${config.mtlsPort}`;
const provider = new Provider(issuer, {
  adapter: Store,
  jwks: { keys },
  scopes: config.scopes,
  clockTolerance: config.tolerance ?? 15,
  fetch: (url, options) => fetch(url, { ...options, dispatcher: undefined }), // the library's own refuses loopback addresses
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'tls_client_auth',
    'self_signed_tls_client_auth', 'none'],
  enabledJWA: Object.fromEntries(['clientAuthSigningAlgValues', 'dPoPSigningAlgValues'].map((name) => [name, [
    ...(name.startsWith('c') ? ['HS256'] : []), 'ES256', 'ES384', 'RS256', 'PS256', 'EdDSA']])),
  assertJwtClientAuthClaimsAndHeader: assertionRules,
  cookies: { keys: [randomBytes(16).toString('hex')] },
  issueRefreshToken: () => false,
  rotateRefreshToken: () => config.rotate ?? true,
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  extraTokenClaims: (ctx) => claimsOf.get(ctx),
  ttl: { ClientCredentials: config.ttl, AccessToken: config.ttl, RefreshToken: 86400, Grant: 86400 },
  discovery: config.mtlsPort ? { mtls_endpoint_aliases: {
    token_endpoint: `${mtls}/token`,
    introspection_endpoint: `${mtls}/token/introspection`,
    revocation_endpoint: `${mtls}/token/revocation`,
  } } : {},
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => config.nonce ?? false },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true,
      selfSignedTlsClientAuth: true,
      tlsClientAuth: true,
      getCertificate: certificateOf,
      certificateAuthorized: (ctx) => ctx.req.socket.authorized === true,
      certificateSubjectMatches: subjectMatches,
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (ctx, resource) => ({
        scope: config.scopes.join(' '),
        audience: resource,
        accessTokenTTL: config.ttl,
        accessTokenFormat: config.formats?.[resource] ?? config.format,
        jwt: { sign: { alg: config.alg ?? 'RS256' } },
      }),
    },
  },
});

// What a token that came in a request says: {sub, act, scope}. Ours, or of an issuer that is trusted.
const readToken = async (value, type) => {
  try {
    if (value.split('.').length !== 3) {
      const found = await provider.AccessToken.find(value) ?? await provider.ClientCredentials.find(value);
      if (!found?.isValid || type === `${TYPE}jwt`) throw new Error('not found');
      return { sub: found.accountId ?? found.clientId, act: found.extra?.act, scope: found.scope };
    }
    const { iss } = jose.decodeJwt(value);
    const clock = { issuer: iss, currentDate: new Date(), requiredClaims: ['sub', 'exp'] };
    if (iss === issuer) return (await jose.jwtVerify(value, ownKeys, { ...clock, typ: 'at+jwt' })).payload;
    if (!trusted.has(iss)) throw new Error('its issuer is not trusted');
    return (await jose.jwtVerify(value, trusted.get(iss), { ...clock, audience: [issuer, `${issuer}/token`] })).payload;
  } catch (error) {
    return { problem: error.message };
  }
};

// The part that the registered grants share: a token for sub, bound as the request and the client want it.
const issue = async (ctx, sub, more, issuedTokenType) => {
  const { client, params } = ctx.oidc;
  const proof = await grants.validateDpop(provider, ctx);
  const [server, another] = await grants.resolveRequestedResources(provider, ctx);
  if (another) throw new errors.InvalidTarget('only one resource');
  const token = new provider.AccessToken({ accountId: sub, client, gty: params.grant_type });
  const asked = [...grants.validateClientScope(provider, ctx)];
  const unknown = asked.filter((scope) => !config.scopes.includes(scope));
  if (unknown.length) throw new errors.InvalidScope('unknown scope', unknown.join(' '));
  if (server) token.resourceServer = server;
  token.scope = asked.join(' ') || undefined;
  const certificate = grants.checkMtlsCert(provider, ctx);
  if (certificate) token.setThumbprint('x5t', certificate);
  grants.checkDpopRequired(provider, ctx, proof);
  if (proof) {
    await grants.checkDpopReplay(provider, ctx, proof, client.clientId);
    token.setThumbprint('jkt', proof.thumbprint);
  }
  claimsOf.set(ctx, more);
  ctx.oidc.entity('AccessToken', token);
  ctx.body = grants.buildTokenResponse(provider, {
    accessToken: await token.save(), expiresIn: token.expiration, issuedTokenType, scope: token.scope, tokenType: token.tokenType,
  });
};

provider.registerGrantType(EXCHANGE, async (ctx) => {
  const { params } = ctx.oidc;
  const given = async (what) => {
    const type = params[`${what}_token_type`];
    if (!params[`${what}_token`] || !type) throw new errors.InvalidRequest(`${what}_token and ${what}_token_type are needed`);
    if (type !== `${TYPE}access_token` && type !== `${TYPE}jwt`) throw new errors.InvalidRequest(`unknown ${what}_token_type`);
    const read = await readToken(params[`${what}_token`], type);
    if (read.problem) throw new errors.InvalidRequest(`${what}_token: ${read.problem}`);
    return read;
  };
  const subject = await given('subject');
  const actor = params.actor_token ? await given('actor') : null;
  if (!actor && params.actor_token_type) throw new errors.InvalidRequest('actor_token_type without actor_token');
  const issued = params.requested_token_type ?? `${TYPE}access_token`;
  if (issued !== `${TYPE}access_token` && issued !== `${TYPE}jwt`) throw new errors.InvalidRequest('requested_token_type');
  params.resource ??= params.audience;
  const act = actor ? { sub: actor.sub, ...(subject.act ? { act: subject.act } : undefined) } : subject.act;
  await issue(ctx, subject.sub, act ? { act } : undefined, issued);
}, ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'requested_token_type', 'audience', 'resource', 'scope'],
['audience', 'resource']);

provider.registerGrantType(JWT_BEARER, async (ctx) => {
  const { assertion } = ctx.oidc.params;
  if (!assertion) throw new errors.InvalidRequest('assertion is needed');
  const read = await readToken(assertion, `${TYPE}jwt`);
  if (read.problem) throw new errors.InvalidGrant(`assertion: ${read.problem}`);
  await issue(ctx, read.sub);
}, ['assertion', 'resource', 'scope'], ['resource']);

provider.use(async (ctx, next) => {
  await next();
  const { entry } = ctx.req;
  if (!entry || ctx.method !== 'POST') return;
  entry.params = { ...ctx.oidc.params };
  entry.error = ctx.body?.error ?? null;
  entry.error_description = ctx.body?.error_description ?? null;
});
provider.on('grant.error', (ctx, error) => { if (ctx.req.entry) ctx.req.entry.detail = error.error_detail ?? null; });
provider.on('server_error', (ctx, error) => console.error(error));

const answer = (res, status, body, headers = {}) => {
  res.writeHead(status, { 'Content-Type': 'application/json', ...headers });
  res.end(typeof body === 'string' ? body : JSON.stringify(body));
};

const body = async (req) => {
  const parts = [];
  for await (const part of req) parts.push(part);
  return Buffer.concat(parts).toString();
};

const mintRefreshToken = async ({ client, sub, scope, resource }) => {
  const found = await provider.Client.find(client);
  const grant = new provider.Grant({ accountId: sub, clientId: client });
  if (resource) grant.addResourceScope(resource, scope);
  else grant.addOIDCScope(scope);
  const token = new provider.RefreshToken({
    accountId: sub, client: found, grantId: await grant.save(), gty: 'test', resource, rotations: 0, scope, sid: randomUUID(),
  });
  return { refresh_token: await token.save() };
};

const rotated = secretsApi(provider, config, { answer, body });
const hooks = {
  ...rotated.hooks,
  log: () => log,
  refuse: (told) => { refusal = told; return {}; },
  drop: (told) => { drop = told; return {}; },
  config: (told) => { Object.assign(config, told); return {}; },
  client: (told) => { setClient(told); return {}; },
  trust: (told) => { trusted.set(told.issuer, jose.createLocalJWKSet(told.jwks)); return {}; },
  refresh: mintRefreshToken,
};

const applies = (what, path) => {
  if (!what || (what.path && what.path !== path) || what.times === 0) return false;
  if (what.times > 0) what.times -= 1;
  return true;
};

// The request is handled and its answer thrown away: nothing of it, or half of it, reaches the client.
const lose = (req, res, entry, half) => {
  const { end, write } = res;
  entry.dropped = true;
  res.write = () => true;
  res.end = (chunk) => {
    entry.status = res.statusCode;
    if (half && chunk) {
      write.call(res, chunk.slice(0, chunk.length / 2), () => req.socket.destroy());
    } else {
      res.end = end;
      req.socket.destroy();
    }
    return res;
  };
};

const handle = provider.callback();
const serve = async (req, res) => {
  const path = new URL(req.url, issuer).pathname;
  if (config.skew || config.dateSkew) {
    res.setHeader('Date', new RealDate(Date.now() + (config.dateSkew ?? 0) * 1000).toUTCString());
  }
  if (path.startsWith('/-/')) {
    try {
      const text = await body(req);
      return answer(res, 200, await hooks[path.slice(3)](text ? JSON.parse(text) : {}));
    } catch (error) {
      return answer(res, 500, { error: String(error?.stack ?? error) });
    }
  }
  const certificate = req.socket.getPeerX509Certificate?.();
  const entry = { time: RealDate.now() / 1000, method: req.method, path, port: req.socket.localPort,
    authorization: !!req.headers.authorization, dpop: req.headers.dpop ?? null, traceparent: req.headers.traceparent ?? null,
    certificate: certificate ? certificate.fingerprint256.replaceAll(':', '').toLowerCase() : null };
  req.entry = entry;
  log.push(entry);
  res.on('finish', () => { entry.status = res.statusCode; });
  if (applies(refusal, path)) return answer(res, refusal.status, refusal.body ?? '', refusal.headers ?? {});
  if (applies(drop, path)) lose(req, res, entry, drop.half);
  return await rotated.serve(req, res, new URL(req.url, issuer)) || handle(req, res);
};

const tls = { cert: readFileSync(config.cert), key: readFileSync(config.key) };
const listen = (port, options) => new Promise((ready) => {
  https.createServer(options, serve).listen(port, '127.0.0.1', ready);
});
const askForCertificates = { ...tls, requestCert: true, rejectUnauthorized: false, ...(config.clientCA ? { ca: config.clientCA } : {}) };
if (config.mtlsPort) await listen(config.mtlsPort, askForCertificates);
await listen(config.port, config.certificates ? askForCertificates : tls);
console.log(`ready ${issuer}`);

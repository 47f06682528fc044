// What Anypoint's and Okta's management APIs do about a client's secret, imitated for clients of the provider in oidc.mjs. It is
// neither of them: paths, methods and answers are theirs, what it rotates is what the provider's token endpoint checks.
//
// config.rotating: ids of the clients; config.manager: the client whose (opaque) tokens may rotate.
import { randomBytes } from 'node:crypto';

const ANYPOINT = /^\/accounts\/api\/connectedApplications\/([^/]+)$/;
const OKTA = /^\/api\/v1\/apps\/([^/]+)\/credentials\/secrets(?:\/([^/]+))?(\/lifecycle\/deactivate)?$/;

export default (provider, config, { answer, body }) => {
  const clients = new Map(); // id -> its secrets, the oldest first: {id, value, active}
  let made = 0;
  let hold = null; // {client, at, reached, drop, wait, release}

  const add = (client) => {
    made += 1;
    const secret = { id: `ocs${made}`, value: randomBytes(24).toString('hex'), active: true };
    clients.get(client).push(secret);
    return secret;
  };
  for (const { client_id: id, client_secret: value } of config.clients) {
    if (config.rotating?.includes(id)) clients.set(id, [{ id: 'ocs0', value, active: true }]);
  }
  const good = (client, value) => (clients.get(client) ?? []).some((secret) => secret.active && secret.value === value);

  // Once, and only who comes first: whoever comes later passes.
  const held = async (client, at) => {
    if (!hold || hold.reached || hold.client !== client || hold.at !== at) return false;
    hold.reached = true;
    const own = hold;
    await own.wait;
    return own.drop;
  };

  // The library's own way for secrets that are kept in another form: its client asks here.
  const { compareClientSecret } = provider.Client.prototype;
  provider.Client.prototype.compareClientSecret = async function compare(value) {
    const own = clients.get(this.clientId);
    if (!own) return compareClientSecret.call(this, value);
    if (own.at(-1).value === value) await held(this.clientId, 'tried');
    return good(this.clientId, value);
  };

  const may = async (req) => {
    const [scheme, value] = (req.headers.authorization ?? '').split(' ');
    const token = scheme.toLowerCase() === 'bearer' && value ? await provider.ClientCredentials.find(value) : undefined;
    return token?.isValid && token.clientId === config.manager;
  };

  const lost = (req) => { req.socket.destroy(); };

  // No overlap: the one that was is refused from here on.
  const reset = async (req, res, client) => {
    if (await held(client, 'asked')) return lost(req);
    clients.set(client, []);
    const { value } = add(client);
    if (await held(client, 'made')) return lost(req);
    return answer(res, 200, { client_id: client, client_secret: value, enabled: true });
  };

  // Two at most; one that is active can't be deleted.
  const okta = async (req, res, client, id, deactivate) => {
    const own = clients.get(client);
    const one = own.find((secret) => secret.id === id);
    const shown = (secret) => ({ id: secret.id, client_secret: secret.value, status: secret.active ? 'ACTIVE' : 'INACTIVE' });
    if (id && !one) return answer(res, 404, { errorCode: 'E0000007', errorSummary: 'Not found' });
    if (req.method === 'GET' && !id) return answer(res, 200, own.map(shown));
    if (req.method === 'POST' && !id) {
      if (await held(client, 'asked')) return lost(req);
      if (own.length >= 2) return answer(res, 400, { errorCode: 'E0000001', errorSummary: 'the maximum of secrets is reached' });
      const secret = add(client);
      if (await held(client, 'made')) return lost(req);
      return answer(res, 201, shown(secret));
    }
    if (req.method === 'POST' && deactivate) {
      one.active = false;
      return answer(res, 200, shown(one));
    }
    if (req.method === 'DELETE' && !deactivate) {
      if (one.active) return answer(res, 403, { errorCode: 'E0000022', errorSummary: 'an active secret is not deleted' });
      clients.set(client, own.filter((secret) => secret !== one));
      res.writeHead(204);
      return res.end();
    }
    return answer(res, 405, { errorSummary: 'no such call' });
  };

  // True: it was one of ours.
  const serve = async (req, res, url) => {
    const anypoint = ANYPOINT.exec(url.pathname);
    const found = anypoint ?? OKTA.exec(url.pathname);
    if (!found || !clients.size) return false;
    const text = await body(req);
    if (!await may(req)) answer(res, 401, { message: 'no token of the manager' });
    else if (!clients.has(found[1])) answer(res, 404, { message: 'no such client' });
    else if (!anypoint) await okta(req, res, found[1], found[2], found[3]);
    else if (req.method !== 'PATCH' || url.search !== '?resetSecret=true' || text !== '{}') answer(res, 400, { message: 'no reset' });
    else await reset(req, res, found[1]);
    return true;
  };

  const hooks = {
    // {client: its secrets that are in force}
    secrets: () => Object.fromEntries([...clients].map(([id, own]) => [id, own.filter((s) => s.active).map((s) => s.value)])),
    pair: ({ client, secret }) => ({ good: good(client, secret) }),
    hold: ({ client, at }) => {
      hold = { client, at, reached: false, drop: false };
      hold.wait = new Promise((release) => { hold.release = release; });
      return {};
    },
    held: () => ({ reached: hold?.reached ?? false }),
    release: ({ drop }) => {
      hold.drop = drop ?? false;
      hold.release();
      return {};
    },
  };
  return { hooks, serve };
};

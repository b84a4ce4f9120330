import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { signBundle } from '../e2e/sign';
import { fromBase64, utf8 } from '../src/bytes';
import { derToRaw, fingerprint, spkiOf, verifyEcdsa, verifyWithNoble } from '../src/packages/keys';
import { checkSignature, checkSigned, preAuthEncoding } from '../src/packages/signature';
import { sha256 } from './helpers';

const fixture = (name: string) => readFileSync(join(__dirname, 'fixtures/signed', name));
// made by `model_signing sign key` of PyPI model-signing 1.1.1
const real = { bundle: new Uint8Array(fixture('model.sig')), pem: fixture('key.pub').toString() };
const key = { name: 'someone', pem: real.pem };

function pair() {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { privateKey, pem: publicKey.export({ type: 'spki', format: 'pem' }).toString() };
}

test('a bundle that model_signing wrote is trusted, and says what was signed', async () => {
  const state = await checkSignature(real.bundle, [key]);
  if (state.kind !== 'trusted') throw new Error(state.kind);
  expect(state.signer).toBe('someone');
  const manifest = fixture('kobako.json');
  expect(() => checkSigned(state, 'kobako.json', sha256(manifest))).not.toThrow();
  expect(() => checkSigned(state, 'kobako.json', sha256(`${manifest} `))).toThrow(/tampered/);
  expect(() => checkSigned(state, 'not-listed', sha256(manifest))).toThrow(/tampered/);
});

test('no bundle is unsigned, a foreign key is untrusted', async () => {
  expect((await checkSignature(null, [key])).kind).toBe('unsigned');
  const other = pair();
  expect(await checkSignature(real.bundle, [{ name: 'other', pem: other.pem }])).toEqual({ kind: 'untrusted', fingerprint: fingerprint(real.pem) });
});

test('a changed statement, signature or claimed key is tampering', async () => {
  const bundle = JSON.parse(fixture('model.sig').toString());
  const statement = atob(bundle.dsseEnvelope.payload).replace('kobako.json', 'kobako.jsom');
  const changed = { ...bundle, dsseEnvelope: { ...bundle.dsseEnvelope, payload: btoa(statement) } };
  await expect(checkSignature(utf8(JSON.stringify(changed)), [key])).rejects.toThrow(/tampered/);
  const forger = pair();
  const forged = JSON.parse(signBundle({ 'kobako.json': '0'.repeat(64) }, forger.privateKey, forger.pem));
  forged.verificationMaterial.publicKey.hint = fingerprint(real.pem);
  await expect(checkSignature(utf8(JSON.stringify(forged)), [key])).rejects.toThrow(/tampered/);
  await expect(checkSignature(utf8('{}'), [key])).rejects.toThrow(/tampered/);
});

test('WebCrypto and @noble/curves agree on good and bad signatures', async () => {
  const bundle = JSON.parse(fixture('model.sig').toString());
  const message = preAuthEncoding(fromBase64(bundle.dsseEnvelope.payload));
  const signature = fromBase64(bundle.dsseEnvelope.signatures[0].sig);
  expect(await verifyEcdsa(real.pem, signature, message)).toBe(true);
  expect(verifyWithNoble(spkiOf(real.pem), signature, message)).toBe(true);
  message[0] = 0;
  expect(await verifyEcdsa(real.pem, signature, message)).toBe(false);
  expect(verifyWithNoble(spkiOf(real.pem), signature, message)).toBe(false);
});

test('many signatures, with short and long integers, are read right', async () => {
  const { privateKey, pem } = pair();
  for (let i = 0; i < 40; i++) {
    const bundle = signBundle({ a: sha256(String(i)) }, privateKey, pem);
    expect((await checkSignature(utf8(bundle), [{ name: 'me', pem }])).kind).toBe('trusted');
  }
});

test('rubbish is no DER signature, and only P-256 keys are keys', () => {
  expect(derToRaw(new Uint8Array([0x30, 2, 2, 0]))).toBeNull();
  expect(derToRaw(new Uint8Array())).toBeNull();
  expect(() => spkiOf('hello')).toThrow(/P-256/);
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'pem' }).toString();
  expect(() => spkiOf(rsa)).toThrow(/P-256/);
});

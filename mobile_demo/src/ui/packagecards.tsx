/** One package as a card: facts, state, what can be done with it. */
import { useState } from 'react';
import { View } from 'react-native';

import { useWords, type Key, type Translate } from '../i18n';
import type { Installed } from '../packages/library';
import type { Manifest } from '../packages/manifest';
import type { SignatureState } from '../packages/signature';
import { ENGINES } from '../engine/index';
import { dropAddress, get, look, partFor, pause, remove, sizeOf, verify, type Row } from '../state/packages';
import { settings } from '../state/settings';
import { useStore } from '../state/store';
import { ownName } from '../tasks/languages';
import { bytesText } from './format';
import { Button, Card, Icon, Notice, ProgressBar, styles, Words, type IconName } from './parts';
import { space, useColors } from './theme';

export function InstalledCard({ one }: { one: Installed }) {
  const t = useWords();
  const [asking, setAsking] = useState(false);
  const [checked, setChecked] = useState<'no' | 'running' | 'good'>('no');
  const check = async () => {
    setChecked('running');
    setChecked((await verify(one)) ? 'no' : 'good');
  };
  return (
    <Card label={one.manifest.name}>
      <Heading name={one.manifest.name} />
      <Facts manifest={one.manifest} target={one.target} size={one.sizeBytes} />
      <Fact icon={one.signer ? 'shield-checkmark-outline' : 'shield-outline'} text={one.signer ? t('signedBy', { name: one.signer }) : t('notSigned')} />
      {checked === 'running' && <Notice busy>{t('working')}</Notice>}
      {checked === 'good' && <Notice kind="good">{t('verified')}</Notice>}
      {asking ? (
        <>
          <Words>{t('removeSure', { name: one.manifest.name, size: bytesText(one.sizeBytes) })}</Words>
          <View style={styles.row}>
            <Button kind="danger" label={t('remove')} onPress={() => void remove(one.manifest.name)} />
            <Button kind="quiet" label={t('cancel')} onPress={() => setAsking(false)} />
          </View>
        </>
      ) : (
        <View style={styles.row}>
          <Button icon="shield-checkmark-outline" label={t('verify')} onPress={() => void check()} />
          <Button kind="quiet" icon="trash-outline" label={t('remove')} onPress={() => setAsking(true)} />
        </View>
      )}
    </Card>
  );
}

export function OfferCard({ row }: { row: Row }) {
  const t = useWords();
  const { offers, error } = row;
  const name = row.set?.name ?? offers[0]?.manifest.name ?? row.address;
  const possible = offers.length > 0 && offers.every((offer) => partFor(offer) !== null);
  return (
    <Card label={name}>
      <Heading name={name} />
      {offers.map((offer) => (
        <View key={offer.manifest.name} style={{ gap: space.s }}>
          {row.set && <Words strong>{offer.manifest.name}</Words>}
          <Facts manifest={offer.manifest} target={partFor(offer)?.target ?? ''} size={sizeOf(offer)} />
          <Signature state={offer.signature} />
        </View>
      ))}
      {row.state === 'looking' && <Notice busy>{t('looking')}</Notice>}
      <Progress row={row} name={name} />
      {error && <Notice kind="error">{t(`error_${error.code}`)}</Notice>}
      {offers.length > 0 && !possible && <Notice kind="error">{t('error_noEngine')}</Notice>}
      <OfferActions row={row} possible={possible} />
    </Card>
  );
}

function Progress({ row, name }: { row: Row; name: string }) {
  const t = useWords();
  if (row.state !== 'loading' && !(row.state === 'paused' && row.stored > 0)) return null;
  return (
    <View style={{ gap: space.xs }}>
      <ProgressBar fraction={row.total ? row.stored / row.total : 0} label={name} />
      <Words small soft>{t('progress', { stored: bytesText(row.stored), total: bytesText(row.total) })}</Words>
    </View>
  );
}

function OfferActions({ row, possible }: { row: Row; possible: boolean }) {
  const t = useWords();
  const { allowUnsigned } = useStore(settings);
  const trusted = row.offers.every((offer) => offer.signature.kind === 'trusted');
  const forget = <Button kind="quiet" label={t('forgetAddress')} onPress={() => void dropAddress(row.address)} />;
  if (row.state === 'looking') return null;
  if (row.state === 'loading') return <Button icon="pause" label={t('pause')} onPress={() => pause(row.address)} />;
  if (!possible) {
    return (
      <View style={styles.row}>
        <Button icon="refresh" label={t('retry')} onPress={() => void look(row.address)} />
        {forget}
      </View>
    );
  }
  const begun = row.state === 'paused' && row.stored > 0;
  const label = begun ? t('resume') : t('get');
  if (trusted || !allowUnsigned) {
    return (
      <View style={styles.row}>
        <Button kind="main" icon="download-outline" label={label} onPress={() => void get(row.address, false)} />
        {forget}
      </View>
    );
  }
  return (
    <View style={{ gap: space.s }}>
      <Words small soft>{t('allowOnceWhy')}</Words>
      <View style={styles.row}>
        <Button kind="danger" icon="warning-outline" label={begun ? label : t('allowOnce')} onPress={() => void get(row.address, true)} />
        {forget}
      </View>
    </View>
  );
}

function Heading({ name }: { name: string }) {
  const colors = useColors();
  return (
    <View style={[styles.row, { flexWrap: 'nowrap' }]}>
      <View style={{ width: 40, height: 40, borderRadius: 12, backgroundColor: colors.tint, alignItems: 'center', justifyContent: 'center' }}>
        <Icon name="cube" size={22} color={colors.accent} />
      </View>
      <View style={{ flexShrink: 1 }}>
        <Words strong>{name}</Words>
      </View>
    </View>
  );
}

function Facts({ manifest, target, size }: { manifest: Manifest; target: string; size: number }) {
  const t = useWords();
  const languages = [...new Set(manifest.tasks.flatMap((task) => task.languages))].map(ownName).join(', ');
  const memory = manifest.targets[target]?.needs.ram_bytes;
  const engine = ENGINES.find((one) => one.target === target)?.title;
  const facts: readonly (readonly [Key, string | undefined])[] = [
    ['size', size > 0 ? bytesText(size) : undefined],
    ['memory', memory ? bytesText(memory) : undefined],
    ['licence', manifest.model.licence],
    ['languages', languages || t('anyLanguage')],
    ['tasks', manifest.tasks.map((task) => taskName(task.name, t)).join(', ')],
    ['context', t('tokens', { count: manifest.context_tokens })],
    ['engineName', engine],
  ];
  return (
    <View style={{ flexDirection: 'row', flexWrap: 'wrap', rowGap: space.s }}>
      {facts.map(([key, value]) =>
        value === undefined ? null : (
          <View key={key} style={{ width: '50%', paddingRight: space.s }}>
            <Words small soft>{t(key)}</Words>
            <Words small>{value}</Words>
          </View>
        ),
      )}
    </View>
  );
}

/** Tasks that have a screen by its name; others by their own. */
const taskName = (name: string, t: Translate): string => (name === 'translate' || name === 'summarize' ? t(name) : name);

function Signature({ state }: { state: SignatureState }) {
  const t = useWords();
  if (state.kind === 'trusted') return <Fact icon="shield-checkmark-outline" text={t('signedBy', { name: state.signer })} />;
  if (state.kind === 'untrusted') return <Fact icon="shield-outline" text={`${t('unknownSigner')} (${state.fingerprint.slice(0, 12)}…)`} />;
  return <Fact icon="shield-outline" text={t('notSigned')} />;
}

function Fact({ icon, text }: { icon: IconName; text: string }) {
  const colors = useColors();
  return (
    <View style={[styles.row, { gap: space.s, flexWrap: 'nowrap' }]}>
      <Icon name={icon} size={18} color={colors.soft} />
      <View style={{ flexShrink: 1 }}>
        <Words small soft>{text}</Words>
      </View>
    </View>
  );
}

/** Packages: what is on the device, what can be had. */
import { useState } from 'react';
import { View } from 'react-native';

import { useWords } from '../../i18n';
import { addAddress, addDirectory, packages, type Row } from '../../state/packages';
import { useStore } from '../../state/store';
import { LabelledField } from '../fields';
import { bytesText } from '../format';
import { InstalledCard, OfferCard } from '../packagecards';
import { Button, Card, styles, Title, Words } from '../parts';
import { space } from '../theme';

export function ModelsScreen() {
  const t = useWords();
  const { installed, rows, freeBytes, ready } = useStore(packages);
  const used = installed.reduce((sum, one) => sum + one.sizeBytes, 0);
  const ids = new Set(installed.map((one) => one.manifest.build_id));
  const here = (row: Row) => row.offers.length > 0 && row.offers.every((offer) => ids.has(offer.manifest.build_id));
  const open = rows.filter((row) => !(here(row) && row.state === 'offered'));
  if (!ready) return null;
  return (
    <View style={{ gap: space.m }}>
      <Title>{t('onThisDevice')}</Title>
      {installed.length === 0 && <Words soft>{t('nothingInstalled')}</Words>}
      {installed.map((one) => (
        <InstalledCard key={one.manifest.name} one={one} />
      ))}
      {freeBytes !== null && (
        <Words small soft>
          {t('storageUsed', { used: bytesText(used), free: bytesText(freeBytes) })}
        </Words>
      )}
      {(open.length > 0 || installed.length === 0) && <Title>{t('available')}</Title>}
      {open.length === 0 && installed.length === 0 && <Words soft>{t('nothingOffered')}</Words>}
      {open.map((row) => (
        <OfferCard key={row.address} row={row} />
      ))}
      <AddPackage />
    </View>
  );
}

function AddPackage() {
  const t = useWords();
  const [address, setAddress] = useState('');
  const add = () => {
    void addAddress(address.trim());
    setAddress('');
  };
  return (
    <Card>
      <LabelledField label={t('addAddress')} value={address} onChangeText={setAddress} placeholder="https://…" inputMode="url" onSubmitEditing={() => address.trim() && add()} />
      <View style={styles.row}>
        <Button icon="add" label={t('add')} disabled={address.trim() === ''} onPress={add} />
        <Button kind="quiet" icon="folder-open-outline" label={t('openFolder')} onPress={() => void addDirectory()} />
      </View>
    </Card>
  );
}

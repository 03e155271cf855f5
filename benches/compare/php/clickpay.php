<?php
// What a shop does that follows ClickPay's documentation: decode, read the key, decrypt the blocks, sort, concatenate,
// compare, answer. It keeps nothing.
$fields = json_decode(file_get_contents('php://input'), true);
$sign = $fields['platSign'] ?? '';
unset($fields['platSign']);
$key = openssl_pkey_get_public(file_get_contents(__DIR__ . '/clickpay.pem'));
$plain = '';
foreach (str_split(base64_decode($sign), 128) as $block) {
    openssl_public_decrypt($block, $piece, $key);
    $plain .= $piece;
}
ksort($fields);
$genuine = implode('', $fields) === $plain;
echo $genuine && $fields['code'] === '00' && $fields['msg'] === 'SUCCESS' ? 'SUCCESS' : 'FAIL';

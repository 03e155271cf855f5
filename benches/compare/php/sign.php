<?php
// Signs notifications with PHP's own openssl and hash extensions, so that what is measured is measured with what
// another implementation made. usage: php sign.php clickpay KEY.pem FIRST COUNT | paygol SECRET FIRST COUNT
// A line of JSON each; for paygol the value of X-Pg-Sig over the canonical form, and over the raw body, before it.
[, $what, $key, $first, $count] = $argv;
$out = fopen('php://stdout', 'w');
$out_buffer = '';
$private = $what === 'clickpay' ? openssl_pkey_get_private('file://' . $key) : null;
for ($n = (int) $first; $n < $first + $count; $n++) {
    if ($what === 'clickpay') {
        $fields = [
            'code' => '00',
            'email' => 'buyer@example.com',
            'method' => 'QRIS',
            'msg' => 'SUCCESS',
            'name' => 'Neo',
            'orderNum' => sprintf('T%013d', $n),
            'payData' => 'https://cashier.example.com/qris/pay?order=' . hash('md5', "order $n") . '&token=' . hash('sha256', "token $n"),
            'payFee' => '250.00',
            'payMoney' => sprintf('%d.00', 10000 + $n % 990000),
            'platOrderNum' => sprintf('55%016d', $n),
        ];
        ksort($fields);
        $signature = '';
        foreach (str_split(implode('', $fields), 117) as $chunk) {
            openssl_private_encrypt($chunk, $block, $private);
            $signature .= $block;
        }
        $fields['platSign'] = base64_encode($signature);
        $line = json_encode($fields, JSON_UNESCAPED_SLASHES);
    } else {
        $fields = [
            'country' => 'CL',
            'completed_at' => '2026-11-20T16:22:32-03:00',
            'currency' => 'CLP',
            'created_at' => '2026-11-20T16:19:27-03:00',
            'custom' => "order-$n",
            'method' => 'webpay',
            'price' => sprintf('%d.00', 1000 + $n % 90000),
            'service_id' => '123',
            'status' => 'completed',
            'transaction_id' => sprintf('ZISS-%012d', $n),
        ];
        $canonical = $fields;
        ksort($canonical);
        $body = json_encode($fields, JSON_UNESCAPED_SLASHES);
        $line = hash_hmac('sha256', json_encode($canonical), $key) . ' ' . hash_hmac('sha256', $body, $key) . ' ' . $body;
    }
    $out_buffer .= $line . "\n";
    if (strlen($out_buffer) > 1 << 20) {
        fwrite($out, $out_buffer);
        $out_buffer = '';
    }
}
fwrite($out, $out_buffer);

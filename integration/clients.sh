#!/usr/bin/env bash
# Runs the aws command line and boto3, unmodified, against kmsfs serve. What is missing of them is installed from PyPI, in a directory that is removed.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
server=
cleanup() {
	if [[ -n $server ]]; then
		kill "$server" && wait "$server" || true
	fi
	rm -rf "$work"
}
trap cleanup EXIT

python=python3
if ! command -v aws >/dev/null || ! python3 -c 'import boto3' 2>/dev/null; then
	python3 -m venv "$work/venv"
	"$work/venv/bin/pip" install --quiet awscli boto3
	PATH=$work/venv/bin:$PATH python=$work/venv/bin/python3
fi

go build -o "$work/kmsfs" ./cmd/kmsfs
export KMSFS_HOME=$work/home KMSFS_KEY_FILE=$work/key
"$work/kmsfs" init "$work/volume"
"$work/kmsfs" serve --listen 127.0.0.1:0 2>"$work/log" &
server=$!
for _ in {1..200}; do
	address=$(sed -n 's/.*msg=serving address=//p' "$work/log")
	[[ -n $address ]] && "$work/kmsfs" credential list >/dev/null 2>&1 && break
	sleep 0.05
done
credential=$("$work/kmsfs" credential create --json)
AWS_ACCESS_KEY_ID=$(sed -n 's/.*"AccessKeyId": "\(.*\)".*/\1/p' <<<"$credential")
AWS_SECRET_ACCESS_KEY=$(sed -n 's/.*"SecretAccessKey": "\(.*\)".*/\1/p' <<<"$credential")
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION=eu-central-1 AWS_PAGER='' AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
url=http://$address

kms() { aws kms --endpoint-url "$url" --output text "$@"; }

echo "== $(aws --version)"
key=$(kms create-key --description 'from the command line' --query KeyMetadata.KeyId)
kms create-alias --alias-name alias/cli --target-key-id "$key"
printf 'a secret' >"$work/plain"
kms encrypt --key-id alias/cli --plaintext "fileb://$work/plain" --encryption-context team=a --query CiphertextBlob | base64 -d >"$work/sealed"
[[ $(kms decrypt --ciphertext-blob "fileb://$work/sealed" --encryption-context team=a --query Plaintext | base64 -d) == 'a secret' ]]
if kms decrypt --ciphertext-blob "fileb://$work/sealed" --encryption-context team=b 2>"$work/error"; then
	echo 'decrypted in another context' >&2
	exit 1
fi
grep -q InvalidCiphertextException "$work/error"
[[ $(kms generate-data-key --key-id alias/cli --key-spec AES_256 --query Plaintext | base64 -d | wc -c) == 32 ]]
grant=$(kms create-grant --key-id "$key" --grantee-principal uid:4711 --operations Decrypt Encrypt --query GrantId)
[[ $(kms list-grants --key-id "$key" --query 'Grants[].GrantId') == "$grant" ]]
kms revoke-grant --key-id "$key" --grant-id "$grant"
signer=$(kms create-key --key-spec ECC_NIST_P256 --key-usage SIGN_VERIFY --query KeyMetadata.KeyId)
kms sign --key-id "$signer" --message "fileb://$work/plain" --signing-algorithm ECDSA_SHA_256 --query Signature | base64 -d >"$work/signature"
[[ $(kms verify --key-id "$signer" --message "fileb://$work/plain" --signature "fileb://$work/signature" --signing-algorithm ECDSA_SHA_256 --query SignatureValid) == True ]]
[[ $(kms list-keys --page-size 1 --query 'Keys[].KeyId' | wc -w) == 3 ]]
kms enable-key-rotation --key-id "$key"
kms disable-key --key-id "$key"
kms describe-key --key-id alias/cli --query KeyMetadata.KeyState | grep -qx Disabled
kms schedule-key-deletion --key-id "$key" --pending-window-in-days 7 >/dev/null

"$python" - "$url" <<'P'
import sys, boto3
print("== boto3", boto3.__version__)
kms = boto3.client("kms", endpoint_url=sys.argv[1])
key = kms.create_key(Tags=[{"TagKey": "from", "TagValue": "boto3"}])["KeyMetadata"]["Arn"]
context = {"path": "/q3/ü", "team": "a"}
data_key = kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=context)
assert kms.decrypt(CiphertextBlob=data_key["CiphertextBlob"], EncryptionContext=context)["Plaintext"] == data_key["Plaintext"]
try:
    kms.decrypt(CiphertextBlob=data_key["CiphertextBlob"])
    raise SystemExit("decrypted without the context")
except kms.exceptions.InvalidCiphertextException as e:
    assert e.response["ResponseMetadata"]["HTTPStatusCode"] == 400 and e.response["ResponseMetadata"]["RequestId"]
moved = kms.re_encrypt(CiphertextBlob=data_key["CiphertextBlob"], SourceEncryptionContext=context, DestinationKeyId=key)
assert kms.decrypt(CiphertextBlob=moved["CiphertextBlob"])["Plaintext"] == data_key["Plaintext"]
mac_key = kms.create_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")["KeyMetadata"]["KeyId"]
mac = kms.generate_mac(KeyId=mac_key, Message=b"m", MacAlgorithm="HMAC_SHA_256")["Mac"]
assert kms.verify_mac(KeyId=mac_key, Message=b"m", Mac=mac, MacAlgorithm="HMAC_SHA_256")["MacValid"]
assert sum(len(page["Keys"]) for page in kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2})) == 5
kms.disable_key(KeyId=key)
try:
    kms.generate_data_key(KeyId=key, KeySpec="AES_256")
    raise SystemExit("a disabled key is used")
except kms.exceptions.DisabledException:
    pass
P
echo 'aws and boto3: all passed'

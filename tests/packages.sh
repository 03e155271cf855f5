# Sourced by ./test and ./prove: installs with apt what the tests call and what is not here.

install_packages() {
    local missing=()
    command -v php >/dev/null && php -r 'exit(function_exists("json_encode") ? 0 : 1);' || missing+=(php-cli)
    command -v openssl >/dev/null || missing+=(openssl)
    [ -x /usr/bin/python3 ] || missing+=(python3)
    /usr/bin/python3 -c 'import cryptography' 2>/dev/null || missing+=(python3-cryptography)
    command -v fusermount3 >/dev/null || missing+=(fuse3)
    /usr/bin/python3 -c 'import pika' 2>/dev/null || missing+=(python3-pika)
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server)
    /usr/bin/python3 -c 'import yaml' 2>/dev/null || missing+=(python3-yaml)
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    command -v promtool >/dev/null || missing+=(prometheus)
    command -v curl >/dev/null || missing+=(curl)
    command -v node >/dev/null || missing+=(nodejs)
    apt_install "${missing[@]}"
}

# What `./test package` calls besides.
install_packaging_tools() {
    local missing=()
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    command -v lintian >/dev/null || missing+=(lintian)
    apt_install "${missing[@]}"
}

apt_install() {
    [ $# -gt 0 ] || return 0
    local missing=("$@") as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { echo "missing: ${missing[*]}; neither root nor sudo: install them by hand" >&2; return 1; }
        as_root=(sudo)
    fi
    command -v apt-get >/dev/null || { echo "missing: ${missing[*]}; no apt-get here: install them by hand" >&2; return 1; }
    printf '\n==> installing with apt: %s\n' "${missing[*]}"
    "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" ||
        return 1
    # These packages start a service for the machine. Nobody asked for one: it came with this installation, so it ends
    # with it.
    local service
    for service in rabbitmq-server prometheus; do
        if [[ " ${missing[*]} " == *" $service "* ]] && [ -d /run/systemd/system ]; then
            "${as_root[@]}" systemctl disable --now --quiet "$service"
        fi
    done
    return 0
}

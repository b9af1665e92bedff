# shellcheck shell=sh disable=SC2016,SC2034,SC2154
# What the wrappers of this module do. Written by eb.

es_eb_python='/opt/eb/bin/python'
es_module='SAMtools/1.21'
es_prefix='/sw/my modules'
es_python='/opt/conda/envs/x/bin/python3'
es_python_command='python3'
es_python_env=''
es_root='/sw/my modules/software/SAMtools/1.21'
es_shell='/bin/sh'

es_plan() {

    # the image: the module's own copy, else the one of that name and size in the site's image store
    if es_exists "$es_root"'/SAMtools-1.21.sif'; then
        es_sif="$es_root"'/SAMtools-1.21.sif'
    elif { es_filled "$es_site_image_store" && es_has_size "$es_site_image_store"'/SAMtools-1.21.sif' 4096; }; then
        es_sif="$es_site_image_store"'/SAMtools-1.21.sif'
    else
        es_sif=''
    fi
    if es_filled "$es_site_image_store"; then
        es_stored="$es_site_image_store"'/SAMtools-1.21.sif (4096 bytes)'
    else
        es_stored='nothing else: the site has no image store'
    fi
    if ! es_filled "$es_sif"; then
        es_fail 'SAMtools/1.21: the image is gone' '  looked for  '"$es_root"'/SAMtools-1.21.sif' '  and for     '"$es_stored" 'hint: module unload SAMtools/1.21; eb --rebuild SAMtools-1.21.eb'
    fi

    # binds: runscripts and overlay, what the recipe, its needs and the site bind; only what this node has
    es_bind "$es_root"'/runscripts' '/runscripts' ''
    es_bind_each ''
    if { es_filled "${TMPDIR-}" && es_bindable "${TMPDIR-}"; }; then
        es_bind "${TMPDIR-}" '' ''
    fi
    if es_filled "$es_site_ca_certificates"; then
        es_bind "$es_site_ca_certificates" '' ''
    fi
    es_push_binds

    # inside the image
    if { es_filled "${APPTAINERENV_PREPEND_PATH-}" && es_filled "${SINGULARITYENV_PREPEND_PATH-}" && ! es_is_same "${APPTAINERENV_PREPEND_PATH-}" "${SINGULARITYENV_PREPEND_PATH-}"; }; then
        es_path="${APPTAINERENV_PREPEND_PATH-}"':'"${SINGULARITYENV_PREPEND_PATH-}"':/runscripts'
    elif es_filled "${APPTAINERENV_PREPEND_PATH-}"; then
        es_path="${APPTAINERENV_PREPEND_PATH-}"':/runscripts'
    elif es_filled "${SINGULARITYENV_PREPEND_PATH-}"; then
        es_path="${SINGULARITYENV_PREPEND_PATH-}"':/runscripts'
    else
        es_path='/runscripts'
    fi
    es_inside 'PREPEND_PATH' "$es_path"
    es_inside 'PYTHONNOUSERSITE' '1'
    if { es_exists "$es_site_ca_certificates" && es_is_unset 'PIP_CERT' && es_is_unset 'APPTAINERENV_PIP_CERT' && es_is_unset 'SINGULARITYENV_PIP_CERT'; }; then
        es_inside 'PIP_CERT' "$es_site_ca_certificates"
    fi
    if { es_exists "$es_site_ca_certificates" && es_is_unset 'SSL_CERT_FILE' && es_is_unset 'APPTAINERENV_SSL_CERT_FILE' && es_is_unset 'SINGULARITYENV_SSL_CERT_FILE'; }; then
        es_inside 'SSL_CERT_FILE' "$es_site_ca_certificates"
    fi
    if { es_exists "$es_site_ca_certificates" && es_is_unset 'REQUESTS_CA_BUNDLE' && es_is_unset 'APPTAINERENV_REQUESTS_CA_BUNDLE' && es_is_unset 'SINGULARITYENV_REQUESTS_CA_BUNDLE'; }; then
        es_inside 'REQUESTS_CA_BUNDLE' "$es_site_ca_certificates"
    fi
    es_inside_each ''

    # names of this module alone, and the module of the runtime where the site has one
    if es_filled "$es_site_module_dependency"; then
        es_depend_on "$es_site_module_dependency"
    fi
    es_set 'SIFSAMTOOLS' "$es_sif"
    es_set 'RUNSCRIPTSSAMTOOLS' "$es_root"'/runscripts'
}

es_command() {
    es_name=$1
    shift
    case $es_name in
        'samtools') es_run 'samtools' "$@" ;;
        'sort') es_run 'samtools' 'sort' "$@" ;;
    esac
}

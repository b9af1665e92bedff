# shellcheck shell=sh disable=SC2016,SC2034,SC2154
# What the wrappers of this module do. Written by eb.

es_eb_python='/opt/eb/bin/python'
es_module='PyTorch/2.7'
es_prefix='/sw/my modules'
es_python='/opt/conda/envs/x/bin/python3'
es_python_command='python3'
es_python_env='x'
es_root='/sw/my modules/software/PyTorch/2.7'
es_shell='/bin/bash'

es_plan() {

    # the image: the module's own copy, else the one of that name and size in the site's image store
    if es_exists "$es_root"'/x.sif'; then
        es_sif="$es_root"'/x.sif'
    elif { es_filled "$es_site_image_store" && es_has_size "$es_site_image_store"'/x.sif' 4096; }; then
        es_sif="$es_site_image_store"'/x.sif'
    else
        es_sif=''
    fi
    if es_filled "$es_site_image_store"; then
        es_stored="$es_site_image_store"'/x.sif (4096 bytes)'
    else
        es_stored='nothing else: the site has no image store'
    fi
    if ! es_filled "$es_sif"; then
        es_fail 'PyTorch/2.7: the image is gone' '  looked for  '"$es_root"'/x.sif' '  and for     '"$es_stored" 'hint: module unload PyTorch/2.7; eb --rebuild PyTorch-2.7.eb'
    fi

    # the user's directory for this module: the prefix's own, or one's own where others installed
    if es_mine "$es_prefix"'/easysif/prefix.json'; then
        es_overlays="$es_prefix"'/overlays'
    elif es_filled "${EASYSIF_OVERLAYS-}"; then
        es_overlays="${EASYSIF_OVERLAYS-}"
    elif es_filled "$es_site_overlays"; then
        es_overlays="$es_site_overlays"
    elif es_filled "${HOME-}"; then
        es_overlays="${HOME-}"'/.local/share/easysif/overlays'
    else
        es_overlays=''
    fi
    if { es_is_absolute "$es_overlays" && es_bindable "$es_overlays"; }; then
        es_containerroot="$es_overlays"'/PyTorch/2.7'
    else
        es_containerroot=''
    fi

    # the overlay: the squashfs if it is whole, else the directory
    if ! es_filled "$es_containerroot"; then
        es_warn 'PyTorch/2.7: there is no place for an overlay, packages cannot be added' '  path  '"$es_overlays" 'hint: export EASYSIF_OVERLAYS=/<a directory>'
    fi
    if { es_exists "$es_containerroot"'/user-software.squashfs' && ! es_valid_squashfs "$es_containerroot"'/user-software.squashfs'; }; then
        es_warn 'PyTorch/2.7: user-software.squashfs is damaged and not used' '  file  '"$es_containerroot"'/user-software.squashfs' 'hint: mv -- "'"$es_containerroot"'/user-software.squashfs" "'"$es_containerroot"'/user-software.squashfs.damaged"'
    fi
    if es_valid_squashfs "$es_containerroot"'/user-software.squashfs'; then
        es_packed="$es_containerroot"'/user-software.squashfs'
    else
        es_packed=''
    fi
    if { es_filled "$es_containerroot" && ! es_exists "$es_containerroot"'/user-software.squashfs'; }; then
        es_make_directory "$es_containerroot"'/user-software'
    fi
    if es_filled "$es_containerroot"; then
        es_user_software="$es_containerroot"'/user-software'
    else
        es_user_software=''
    fi

    # binds: runscripts and overlay, what the recipe, its needs and the site bind; only what this node has
    es_bind "$es_root"'/runscripts' '/runscripts' ''
    if es_filled "$es_packed"; then
        es_bind "$es_packed" '/user-software' 'image-src=/,ro'
    fi
    if { ! es_filled "$es_packed" && es_is_directory "$es_user_software"; }; then
        es_bind "$es_user_software" '/user-software' ''
    fi
    es_bind '/data' '/mnt' 'ro'
    es_bind_each 'amd-gpu'
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
        es_path="${APPTAINERENV_PREPEND_PATH-}"':'"${SINGULARITYENV_PREPEND_PATH-}"':/runscripts:/user-software/venv/x/bin:/opt/conda/envs/x/bin'
    elif es_filled "${APPTAINERENV_PREPEND_PATH-}"; then
        es_path="${APPTAINERENV_PREPEND_PATH-}"':/runscripts:/user-software/venv/x/bin:/opt/conda/envs/x/bin'
    elif es_filled "${SINGULARITYENV_PREPEND_PATH-}"; then
        es_path="${SINGULARITYENV_PREPEND_PATH-}"':/runscripts:/user-software/venv/x/bin:/opt/conda/envs/x/bin'
    else
        es_path='/runscripts:/user-software/venv/x/bin:/opt/conda/envs/x/bin'
    fi
    es_inside 'PREPEND_PATH' "$es_path"
    es_inside 'PYTHONNOUSERSITE' '1'
    es_inside 'VIRTUAL_ENV' '/user-software/venv/x'
    es_inside 'CONDA_PREFIX' '/opt/conda/envs/x'
    es_inside 'CONDA_DEFAULT_ENV' 'x'
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
    es_inside_each 'amd-gpu'
    es_inside 'QUOTES' '"it'\''s \$5"'
    es_push 'SINGULARITY_ROCM' '1'
    es_push 'APPTAINER_ROCM' '1'

    # names of this module alone, and the module of the runtime where the site has one
    if es_filled "$es_site_module_dependency"; then
        es_depend_on "$es_site_module_dependency"
    fi
    es_set 'SIFPYTORCH' "$es_sif"
    es_set 'RUNSCRIPTSPYTORCH' "$es_root"'/runscripts'

    # names that every environment module sets
    es_family 'easysif_environment'
    es_push 'SIF' "$es_sif"
    es_push 'CONTAINERROOT' "$es_containerroot"
    es_push 'RUNSCRIPTS' "$es_root"'/runscripts'
    es_push 'USER_SOFTWARE' "$es_user_software"
    es_push 'WITH_CONDA' '. /runscripts/init-conda'
    es_inside 'WITH_CONDA' '. /runscripts/init-conda'
    es_push 'WITH_VENV' '. /runscripts/init-venv'
    es_inside 'WITH_VENV' '. /runscripts/init-venv'
    es_push 'WITH_CONDA_VENV' '. /runscripts/init-conda-venv'
    es_inside 'WITH_CONDA_VENV' '. /runscripts/init-conda-venv'

    # EasyBuild keeps its Python although this module wraps python3
    if es_filled "${EB_PYTHON-}"; then
        es_eb_python="${EB_PYTHON-}"
    else
        es_eb_python='/opt/eb/bin/python'
    fi
    es_push 'EB_PYTHON' "$es_eb_python"
}

es_command() {
    es_name=$1
    shift
    case $es_name in
        'python') es_run 'python' "$@" ;;
        'torchrun') es_run '/runscripts/lib/run-python-script' 'python3' '/opt/conda/envs/x/bin/torchrun' "$@" ;;
    esac
}

-- Products of tenants' built-in catalogues, and which of them have a vector. Additive: code of before runs on beside it.

CREATE FUNCTION brain.facet(p_name text, p_value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- A word that no text can hold, for the value of an attribute (or of the category, which is named `>`).
RETURN '=' || md5(lower(p_name) || '=' || lower(p_value));

CREATE FUNCTION brain.product_words(
    p_tenant text, p_title text, p_description text, p_category text, p_attributes jsonb)
RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- The words of a product as they are written and their English stems; beside them words for all that is filtered by: its
-- tenant, its category with those above it (`Clothing > Shirts` is in `Clothing`), its attributes.
RETURN setweight(to_tsvector('pg_catalog.simple'::regconfig, p_title), 'A')
    || setweight(to_tsvector('pg_catalog.english'::regconfig, p_title), 'A')
    || setweight(to_tsvector('pg_catalog.simple'::regconfig, coalesce(p_category, '') || ' ' || coalesce(
        (SELECT string_agg(a.value, ' ' ORDER BY a.key) FROM jsonb_each_text(p_attributes) a), '')), 'B')
    || setweight(to_tsvector('pg_catalog.english'::regconfig, coalesce(p_category, '') || ' ' || coalesce(
        (SELECT string_agg(a.value, ' ' ORDER BY a.key) FROM jsonb_each_text(p_attributes) a), '')), 'B')
    || to_tsvector('pg_catalog.simple'::regconfig, coalesce(p_description, ''))
    || to_tsvector('pg_catalog.english'::regconfig, coalesce(p_description, ''))
    || array_to_tsvector(ARRAY[' ' || p_tenant]
        || ARRAY(SELECT brain.facet(a.key, a.value) FROM jsonb_each_text(p_attributes) a)
        || ARRAY(SELECT brain.facet('>', array_to_string(s.steps[1 : n], ' > '))
            FROM (SELECT string_to_array(p_category, ' > ') AS steps) s, generate_subscripts(s.steps, 1) n));

CREATE TABLE brain.products (
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,  -- the shop's own
    title text NOT NULL,
    description text,
    url text,
    price numeric CHECK (price >= 0 AND price < 'Infinity'),
    currency text,
    stock integer CHECK (stock >= 0),
    available boolean,
    category text,
    group_id text COLLATE "C",
    attributes jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    in_stock boolean GENERATED ALWAYS AS (CASE WHEN stock IS NULL THEN available ELSE stock > 0 END) STORED,
    price_up numeric GENERATED ALWAYS AS (coalesce(price, 'Infinity')) STORED,  -- no price comes last, in both orders
    price_down numeric GENERATED ALWAYS AS (coalesce(-price, 'Infinity')) STORED,
    title_key text COLLATE "C" GENERATED ALWAYS AS (lower(left(title, 200))) STORED,
    words tsvector GENERATED ALWAYS AS (brain.product_words(tenant_id, title, description, category, attributes)) STORED,
    PRIMARY KEY (tenant_id, id)
) WITH (toast_tuple_target = 8160);  -- words are looked at in thousands of rows a search: compressed ones cost thrice
CREATE INDEX products_found ON brain.products USING gin (words) WITH (gin_pending_list_limit = 512);
CREATE INDEX products_by_price ON brain.products (tenant_id, price_up, id);
CREATE INDEX products_by_price_down ON brain.products (tenant_id, price_down, id);
CREATE INDEX products_by_title ON brain.products (tenant_id, title_key, id);
CREATE INDEX products_of_group ON brain.products (tenant_id, group_id, id) WHERE group_id IS NOT NULL;

CREATE TABLE brain.product_vectors (  -- outlives its product until the vector is removed
    tenant_id text COLLATE "C" NOT NULL REFERENCES brain.tenants ON DELETE CASCADE,
    product_id text COLLATE "C" NOT NULL,
    text_hash uuid,  -- of what is embedded; null: the product is gone
    version bigint NOT NULL DEFAULT 1,
    space text COLLATE "C" NOT NULL DEFAULT '',  -- in which this version has its vector
    claimed_until timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (tenant_id, product_id)
);
CREATE INDEX product_vectors_of_space ON brain.product_vectors (space, tenant_id, product_id);

CREATE FUNCTION brain.query_terms(p_text text) RETURNS tsquery[]
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = brain, pg_temp AS $$
-- The words of a question, each as it is written or by its stem; without those that say nothing (stop words), if there
-- are others. `S` is a size.
    WITH cleaned AS (SELECT regexp_replace(left(p_text, 2000), '[''’]s\M', '', 'gi') AS text),
    plain AS (
        SELECT w.lexeme, at FROM cleaned, unnest(to_tsvector('pg_catalog.simple', text)) w, unnest(w.positions) AS at),
    stems AS (
        SELECT w.lexeme, at FROM cleaned, unnest(to_tsvector('pg_catalog.english', text)) w, unnest(w.positions) AS at),
    terms AS (
        SELECT p.at, s.lexeme IS NOT NULL OR p.lexeme = 's' AS says,
            quote_literal(p.lexeme)::tsquery || quote_literal(coalesce(s.lexeme, p.lexeme))::tsquery AS term
        FROM plain p LEFT JOIN stems s USING (at)),
    once AS (SELECT term, says, min(at) AS at FROM terms GROUP BY term, says),
    chosen AS (
        SELECT term, at FROM once WHERE says OR NOT EXISTS (SELECT FROM once WHERE says) ORDER BY at LIMIT 32)
    SELECT coalesce(array_agg(term ORDER BY at), '{}') FROM chosen
$$;

CREATE FUNCTION brain.known_terms(p_tenant text, p_terms tsquery[]) RETURNS tsquery[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp
SET enable_seqscan = off SET enable_indexscan = off AS $$  -- a word that others use often may be one that nobody here has
-- Those of them that any product of this tenant has, which must be the transaction's.
    SELECT coalesce(array_agg(t.term ORDER BY t.place), '{}') FROM unnest(p_terms) WITH ORDINALITY t (term, place)
        WHERE p_tenant = brain.tenant() AND EXISTS (
            SELECT FROM products p WHERE p.words @@ (quote_literal(' ' || p_tenant)::tsquery && t.term))
$$;

CREATE FUNCTION brain.find_products(
    p_text text, p_category text, p_attributes jsonb, p_min numeric, p_max numeric, p_currency text, p_in_stock boolean,
    p_group text, p_not_group text, p_ids text[], p_sort text, p_after text, p_collapse boolean, p_limit integer)
RETURNS TABLE (id text, group_id text, score double precision, total integer, lacking integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = brain, pg_temp SET enable_seqscan = off AS $$
-- Products of the transaction's tenant: ids only. Row-level security would keep the index of words from being used, for a
-- match of words is not leakproof; so this is defined with the rights to read all, and looks at one tenant.
-- By relevance: of at most 10,000 that fit, those with at least half as many of the words as the best one has; `lacking`:
-- how many words that one lacks.
DECLARE
    v_tenant text := brain.tenant();
    v_terms tsquery[] := brain.query_terms(p_text);
    v_here tsquery;
    v_words tsquery;
    v_where text := 'p.tenant_id = $1';
    v_covered text;
    v_key text;
    v_name text;
    v_values jsonb;
    v_any tsquery;
    v_all tsquery;
    v_one tsquery;
    v_match tsquery;
    v_asked integer := cardinality(v_terms);
    v_from products;
    v_one_of text := 'CASE WHEN $10 AND p.group_id IS NOT NULL THEN ''g'' || p.group_id ELSE ''p'' || p.id END';
    v_enough boolean;
BEGIN
    IF coalesce(v_tenant, '') = '' THEN
        RETURN;
    END IF;
    v_here := quote_literal(' ' || v_tenant)::tsquery;
    IF p_category IS NOT NULL THEN
        v_words := quote_literal(brain.facet('>', p_category))::tsquery;
    END IF;
    FOR v_name, v_values IN SELECT * FROM jsonb_each(p_attributes) LOOP
        SELECT string_agg(quote_literal(brain.facet(v_name, v.value)), ' | ')::tsquery INTO v_any
            FROM jsonb_array_elements_text(v_values) v;
        v_words := coalesce(v_words && v_any, v_any, v_words);
    END LOOP;
    IF p_sort = 'relevance' AND v_asked > 1 THEN  -- a sentence has words that say nothing here: `dollars`
        v_terms := brain.known_terms(v_tenant, v_terms);
        IF cardinality(v_terms) = 0 THEN
            RETURN;
        END IF;
    END IF;
    v_any := NULL;
    FOREACH v_one IN ARRAY v_terms LOOP
        v_any := coalesce(v_any || v_one, v_one);
        v_all := coalesce(v_all && v_one, v_one);
    END LOOP;
    IF p_min IS NOT NULL THEN v_where := v_where || ' AND p.price >= $2 AND p.price_up >= $2'; END IF;
    IF p_max IS NOT NULL THEN v_where := v_where || ' AND p.price <= $3 AND p.price_up <= $3'; END IF;
    IF p_currency IS NOT NULL THEN v_where := v_where || ' AND p.currency = $4'; END IF;
    IF p_in_stock IS NOT NULL THEN v_where := v_where || ' AND p.in_stock = $5'; END IF;
    IF p_group IS NOT NULL THEN v_where := v_where || ' AND p.group_id = $6'; END IF;
    IF p_not_group IS NOT NULL THEN v_where := v_where || ' AND p.group_id IS DISTINCT FROM $7'; END IF;
    IF p_ids IS NOT NULL THEN v_where := v_where || ' AND p.id = ANY ($8)'; END IF;
    IF p_sort <> 'relevance' THEN
        v_key := CASE p_sort WHEN 'price' THEN 'price_up' WHEN '-price' THEN 'price_down' ELSE 'title_key' END;
        v_words := coalesce(v_words && v_all, v_words, v_all);
        IF v_words IS NOT NULL THEN
            v_words := v_here && v_words;
            v_where := v_where || ' AND p.words @@ $9';
        END IF;
        IF p_after IS NOT NULL THEN
            SELECT p.* INTO v_from FROM products p WHERE p.tenant_id = v_tenant AND p.id = p_after;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'there is no such product to go on after' USING ERRCODE = 'BR404';
            END IF;
            v_where := v_where || format(' AND (p.%I, p.id) > ($10.%1$I, $10.id)', v_key);
        END IF;
        RETURN QUERY EXECUTE format(
            'SELECT p.id, p.group_id, 0::float8, NULL::integer, 0 FROM products p WHERE %s ORDER BY p.%I, p.id LIMIT $11',
            v_where, v_key)
            USING v_tenant, p_min, p_max, p_currency, p_in_stock, p_group, p_not_group, p_ids, v_words, v_from, p_limit;
        RETURN;
    END IF;
    IF p_after IS NOT NULL THEN  -- there is one page
        RETURN;
    END IF;
    SELECT coalesce(string_agg(format('(p.words @@ $12[%s])::integer', n), ' + '), '0') INTO v_covered
        FROM generate_subscripts(v_terms, 1) n;
    v_match := coalesce(v_words && v_all, v_words, v_all);
    IF cardinality(v_terms) > 1 THEN  -- all of the words, where enough products have them
        EXECUTE format('SELECT count(DISTINCT one) >= $11 FROM (SELECT %s AS one FROM products p WHERE %s AND p.words @@ $9'
            ' LIMIT 4 * $11) s', v_one_of, v_where) INTO v_enough
            USING v_tenant, p_min, p_max, p_currency, p_in_stock, p_group, p_not_group, p_ids, v_here && v_match,
                p_collapse, p_limit;
        IF NOT v_enough THEN
            v_match := coalesce(v_words && v_any, v_any);
        END IF;
    END IF;
    v_match := v_here && v_match;
    RETURN QUERY EXECUTE format($sql$
        SELECT b.id, b.group_id, b.score, (count(*) OVER ())::integer, $14 - b.most FROM (
            SELECT DISTINCT ON (s.one) s.id, s.group_id, s.covered + s.rank AS score,
                    s.covered * 2 >= max(s.covered) OVER () AS enough, max(s.covered) OVER () AS most
                FROM (SELECT p.id, p.group_id, p.in_stock, %s AS covered, %s AS rank, %s AS one
                    FROM products p WHERE %s%s LIMIT 10000) s
                ORDER BY s.one, s.covered + s.rank DESC, s.in_stock DESC NULLS LAST, s.id) b
            WHERE b.enough ORDER BY b.score DESC, b.id LIMIT $11
        $sql$, v_covered, CASE WHEN v_any IS NULL THEN '0::float8' ELSE 'ts_rank(p.words, $13)::float8' END, v_one_of,
        v_where, CASE WHEN v_match IS NULL THEN ' ORDER BY p.id' ELSE ' AND p.words @@ $9' END)
        USING v_tenant, p_min, p_max, p_currency, p_in_stock, p_group, p_not_group, p_ids, v_match, p_collapse, p_limit,
            v_terms, v_any, v_asked;
END $$;

CREATE FUNCTION brain.like_lexemes(p_start text) RETURNS TABLE (lexeme text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Words that begin like this, in up to 200 products of the transaction's tenant: for what may be misspelt.
    SELECT DISTINCT w.lexeme FROM (
            SELECT p.words FROM products p WHERE p.words @@ (quote_literal(' ' || brain.tenant())::tsquery
                && (quote_literal(p_start) || ':*')::tsquery) LIMIT 200) found, unnest(found.words) w
        WHERE starts_with(w.lexeme, p_start) LIMIT 1000
$$;

CREATE FUNCTION brain.unknown_words(p_text text) RETURNS TABLE (word text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp
SET enable_seqscan = off SET enable_indexscan = off AS $$
-- Words of a question that no product of the transaction's tenant has, neither as they are written nor by their stem.
    SELECT w.lexeme FROM unnest(to_tsvector('pg_catalog.simple', left(p_text, 2000))) w
        WHERE length(w.lexeme) > 3 AND numnode(plainto_tsquery('pg_catalog.english', w.lexeme)) > 0
            AND NOT EXISTS (SELECT FROM products p WHERE p.words @@ (quote_literal(' ' || brain.tenant())::tsquery
                && (quote_literal(w.lexeme)::tsquery || plainto_tsquery('pg_catalog.english', w.lexeme))))
        ORDER BY w.positions[1] LIMIT 8
$$;

CREATE FUNCTION brain.claim_products(p_space text, p_lease interval, p_after text, p_limit integer)
RETURNS TABLE (tenant_id text, product_id text, version bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- Products of one tenant without a vector in this space, of the one after p_after, and round to it; then those with one
-- in another space. Ids only.
DECLARE
    v_free timestamptz := clock_timestamp();
    v_tenant text := coalesce(
        (SELECT v.tenant_id FROM product_vectors v WHERE v.space = '' AND v.tenant_id > coalesce(p_after, '')
            AND v.claimed_until < v_free ORDER BY v.tenant_id LIMIT 1),
        (SELECT v.tenant_id FROM product_vectors v WHERE v.space = ''
            AND v.claimed_until < v_free ORDER BY v.tenant_id LIMIT 1));
    v_space text := '';
BEGIN
    IF v_tenant IS NULL THEN
        SELECT v.space, v.tenant_id INTO v_space, v_tenant FROM (
            (SELECT v.space, v.tenant_id FROM product_vectors v WHERE v.space < p_space AND v.claimed_until < v_free
                ORDER BY v.space LIMIT 1)
            UNION ALL (SELECT v.space, v.tenant_id FROM product_vectors v WHERE v.space > p_space
                AND v.claimed_until < v_free ORDER BY v.space LIMIT 1)) v LIMIT 1;
    END IF;
    RETURN QUERY
        UPDATE product_vectors v SET claimed_until = v_free + p_lease FROM (
            SELECT w.product_id FROM product_vectors w
                WHERE w.space = v_space AND w.tenant_id = v_tenant AND w.claimed_until < v_free
                ORDER BY w.product_id LIMIT p_limit FOR UPDATE SKIP LOCKED) mine
            WHERE v.tenant_id = v_tenant AND v.product_id = mine.product_id
            RETURNING v.tenant_id, v.product_id, v.version;
END $$;

CREATE FUNCTION brain.waiting_products(p_space text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = brain, pg_temp AS $$
-- How many products have no vector in this space yet; 100,000 stand for any more.
    SELECT count(*) FROM (SELECT FROM product_vectors v WHERE v.space < p_space OR v.space > p_space LIMIT 100000) w
$$;

DO $$
DECLARE
    t text;
    f regprocedure;
    defined text[] := ARRAY['find_products', 'known_terms', 'like_lexemes', 'unknown_words', 'claim_products',
        'waiting_products'];
BEGIN
    FOREACH t IN ARRAY ARRAY['products', 'product_vectors'] LOOP
        EXECUTE 'ALTER TABLE brain.' || t || ' ENABLE ROW LEVEL SECURITY';
        EXECUTE 'ALTER TABLE brain.' || t || ' FORCE ROW LEVEL SECURITY';
        EXECUTE 'CREATE POLICY tenant ON brain.' || t || ' TO brain_app USING (tenant_id = brain.tenant())';
        EXECUTE 'CREATE POLICY work ON brain.' || t || ' TO brain_definer USING (true)';
        EXECUTE 'CREATE POLICY administration ON brain.' || t || ' TO CURRENT_USER USING (true)';
    END LOOP;
    GRANT CREATE ON SCHEMA brain TO brain_definer;
    FOR f IN SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'brain'::regnamespace
            AND proname = ANY (defined || ARRAY['facet', 'product_words', 'query_terms']) LOOP
        EXECUTE 'REVOKE ALL ON FUNCTION ' || f || ' FROM PUBLIC';
        EXECUTE 'GRANT EXECUTE ON FUNCTION ' || f || ' TO brain_app, brain_definer';
    END LOOP;
    FOR f IN SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'brain'::regnamespace
            AND proname = ANY (defined) LOOP
        EXECUTE 'ALTER FUNCTION ' || f || ' OWNER TO brain_definer';
    END LOOP;
    REVOKE CREATE ON SCHEMA brain FROM brain_definer;
END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON brain.products, brain.product_vectors TO brain_app;
GRANT SELECT ON brain.products TO brain_definer;
GRANT SELECT, UPDATE ON brain.product_vectors TO brain_definer;
